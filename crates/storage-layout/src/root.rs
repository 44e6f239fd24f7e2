//! `RootPath`: the folder in a bucket under which everything is stored.

use crate::Error;

/// A folder in the bucket, as the option `RootPath` spells it; empty for the bucket itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RootPath(String);

impl RootPath {
    /// Checks and keeps `root`. One `/` at its end makes no difference; blanks, `#`, `%`, `~` and letters outside of
    /// ASCII are kept as they are.
    ///
    /// # Errors
    ///
    /// [`Error::AbsoluteRoot`] when it begins with `/`, [`Error::InvalidFolder`] when a part of it cannot be in an
    /// object name.
    pub fn new(root: &str) -> Result<Self, Error> {
        if root.starts_with('/') {
            return Err(Error::AbsoluteRoot(root.to_owned()));
        }
        let folders = root.strip_suffix('/').unwrap_or(root);
        if !folders.is_empty() {
            let refused = |folder: &&str| {
                matches!(*folder, "" | "." | "..") || folder.chars().any(|letter| letter.is_ascii_control())
            };
            if let Some(folder) = folders.split('/').find(refused) {
                return Err(Error::InvalidFolder { root: root.to_owned(), folder: folder.to_owned() });
            }
        }
        Ok(Self(folders.to_owned()))
    }

    /// The name of `name` under this folder. The separator is `/` on every platform.
    pub fn join(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}/{name}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_slash_makes_no_difference() {
        assert_eq!(RootPath::new("a/b/").unwrap().join("x"), "a/b/x");
        assert_eq!(RootPath::new("a/b").unwrap().join("x"), "a/b/x");
        assert_eq!(RootPath::new("").unwrap().join("x"), "x");
    }

    #[test]
    fn a_leading_slash_is_refused() {
        for root in ["/", "/a", "//a"] {
            assert_eq!(RootPath::new(root), Err(Error::AbsoluteRoot(root.to_owned())));
        }
    }

    #[test]
    fn folders_that_no_object_name_can_have_are_refused() {
        for (root, folder) in
            [("a//b", ""), ("a//", ""), ("./a", "."), ("a/../b", ".."), ("..", ".."), ("a/b\nc", "b\nc")]
        {
            let expected = Error::InvalidFolder { root: root.to_owned(), folder: folder.to_owned() };
            assert_eq!(RootPath::new(root), Err(expected));
        }
    }
}
