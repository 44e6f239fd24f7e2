//! Object names must arrive byte for byte: existing objects have the names that the C++ plugins gave them.

use anyhow::Result;
use bucket::ReadRange;

use crate::Cloud;
use crate::client::fixture::Client;

tests! {
    EveryCloud:
        odd_names_arrive_byte_for_byte,
        encoded_names_are_different_objects,
        folder_of_an_object_is_another_object,
}

/// Names with letters that have a meaning in a URL, a signature or a header.
pub(super) const ODD: [&str; 26] = [
    "with blanks in it",
    " leading and trailing ",
    "50% #1",
    "#",
    "%",
    "~tilde~",
    "a+b",
    "a&b=c&d",
    "question?",
    "?query=1&other=2",
    "semi;colon:comma,",
    "quotes\"'`",
    "<angle>",
    "{curly}[square](round)",
    "pipe|caret^",
    "back\\slash",
    "dollar$at@bang!star*",
    "trailing.dot.",
    "...",
    "Röntgen",
    "東京/ファイル",
    "Ελληνικά Кириллица עברית",
    "e\u{301} is not \u{e9}",
    "🩻",
    "a/b/c/d/e/f/g/h",
    "with/some ünusual/fol+ders/and 100%/in it",
];

/// Names that are the same after decoding, normalisation or change of case.
pub(super) const ENCODED: [&str; 13] = [
    "a b", "a+b", "a%20b", "a%2520b", "a%2Bb", "a/b", "a%2Fb", "a%2fb", "a~b", "a%7Eb", "A b", "e\u{301}",
    "\u{e9}",
];

fn odd_names_arrive_byte_for_byte<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    let mut names: Vec<String> = ODD.map(str::to_owned).into();
    names.extend(ODD.map(|name| format!("folder/{name}/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm")));
    // 900 bytes, which encoding triples.
    names.push("京".repeat(100) + "/" + &"東京/".repeat(85) + "xxxx");
    assert_eq!(names.last().map(String::len), Some(900));
    for name in &names {
        let content = format!("the content of {name}");
        client.put(name, content.clone())?;
        assert_eq!(client.keys(), [C::stored_name(name)]);
        client.assert_stored(name, content.as_bytes());
        assert_eq!(client.get(name, ReadRange::Whole)?, content.as_bytes());
        assert_eq!(client.get(name, ReadRange::Range(4..11))?, b"content");
        client.delete(name)?;
        assert!(client.keys().is_empty(), "{name:?} is not deleted");
    }
    Ok(())
}

fn encoded_names_are_different_objects<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    let mut names = ENCODED;
    for name in names {
        client.put(name, name.to_owned())?;
    }
    for name in names {
        client.assert_stored(name, name.as_bytes());
        assert_eq!(client.get(name, ReadRange::Whole)?, name.as_bytes());
    }
    names.sort_unstable();
    assert_eq!(client.keys(), names);
    for (deleted, name) in names.iter().enumerate() {
        client.delete(name)?;
        assert_eq!(client.keys(), names[deleted + 1..]);
    }
    Ok(())
}

fn folder_of_an_object_is_another_object<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    for name in ["a", "a/b", "a/b/c", "ab"] {
        client.put(name, name.to_owned())?;
    }
    assert_eq!(client.get("a/b", ReadRange::Whole)?, b"a/b");
    client.delete("a/b")?;
    assert_eq!(client.keys(), ["a", "a/b/c", "ab"]);
    client.delete("a")?;
    assert_eq!(client.keys(), ["a/b/c", "ab"]);
    Ok(())
}
