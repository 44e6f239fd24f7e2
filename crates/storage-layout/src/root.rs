//! `RootPath`: the folder in a bucket that contains all objects.

use crate::Error;

/// The folder in the bucket that contains all objects (the option `RootPath`); empty for the bucket itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RootPath(String);

impl RootPath {
    /// Validates `root`. One `/` at its end is removed; blanks, `#`, `%`, `~` and non-ASCII letters are
    /// preserved.
    ///
    /// # Errors
    ///
    /// [`Error::AbsoluteRoot`] if `root` begins with `/`, [`Error::InvalidFolder`] if it contains a folder
    /// that cannot be part of an object name.
    pub fn new(root: &str) -> Result<Self, Error> {
        if root.starts_with('/') {
            return Err(Error::AbsoluteRoot(root.to_owned()));
        }
        let folders = root.strip_suffix('/').unwrap_or(root);
        if !folders.is_empty() {
            let is_invalid = |folder: &&str| {
                matches!(*folder, "" | "." | "..") || folder.chars().any(|letter| letter.is_ascii_control())
            };
            if let Some(folder) = folders.split('/').find(is_invalid) {
                return Err(Error::InvalidFolder { root: root.to_owned(), folder: folder.to_owned() });
            }
        }
        Ok(Self(folders.to_owned()))
    }

    /// Returns the object name of `name` in this folder. The separator is `/` on every platform.
    pub fn join(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { [&self.0, "/", name].concat() }
    }

    /// Returns the `name` that was given to [`join`](Self::join); `None` if the object is outside this folder.
    pub(crate) fn strip<'a>(&self, object: &'a str) -> Option<&'a str> {
        if self.0.is_empty() { Some(object) } else { object.strip_prefix(&self.0)?.strip_prefix('/') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_slash_is_ignored() {
        assert_eq!(RootPath::new("a/b/").unwrap().join("x"), "a/b/x");
        assert_eq!(RootPath::new("a/b").unwrap().join("x"), "a/b/x");
        assert_eq!(RootPath::new("").unwrap().join("x"), "x");
    }

    #[test]
    fn leading_slash_is_refused() {
        for root in ["/", "/a", "//a"] {
            assert_eq!(RootPath::new(root), Err(Error::AbsoluteRoot(root.to_owned())));
        }
    }

    #[test]
    fn invalid_folders_are_refused() {
        for (root, folder) in
            [("a//b", ""), ("a//", ""), ("./a", "."), ("a/../b", ".."), ("..", ".."), ("a/b\nc", "b\nc")]
        {
            let expected = Error::InvalidFolder { root: root.to_owned(), folder: folder.to_owned() };
            assert_eq!(RootPath::new(root), Err(expected));
        }
    }
}
