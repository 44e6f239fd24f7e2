//! Names must arrive byte for byte: they are those that the former plugins gave, and are searched for by them.

use anyhow::Result;
use bucket::ReadRange;

use crate::Cloud;
use crate::client::fixture::Client;

tests![
    odd_names_arrive_byte_for_byte,
    names_that_would_be_the_same_if_decoded_are_different_objects,
    a_name_that_is_the_folder_of_another_is_an_object_of_its_own,
    a_name_of_900_bytes_arrives_byte_for_byte,
];

/// Names with letters that mean something in a URL, in a signature or in a header.
const ODD: [&str; 26] = [
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

/// Puts, reads and deletes an object of this name in an empty bucket.
fn round_trip<C: Cloud>(bucket: &Client<C>, name: &str) -> Result<()> {
    let content = format!("the content of {name}");
    bucket.put(name, content.clone())?;
    assert_eq!(bucket.keys(), [C::stored_name(name)]);
    bucket.assert_stored(name, content.as_bytes());
    assert_eq!(bucket.get(name, ReadRange::Whole)?, content.as_bytes());
    assert_eq!(bucket.get(name, ReadRange::Range(4..11))?, b"content");
    bucket.delete(name)?;
    assert!(bucket.keys().is_empty(), "{name:?} is still there");
    Ok(())
}

fn odd_names_arrive_byte_for_byte<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    for name in ODD {
        round_trip(&bucket, name)?;
        round_trip(&bucket, &format!("folder/{name}/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm"))?;
    }
    Ok(())
}

fn names_that_would_be_the_same_if_decoded_are_different_objects<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let mut names = [
        "a b", "a+b", "a%20b", "a%2520b", "a%2Bb", "a/b", "a%2Fb", "a%2fb", "a~b", "a%7Eb", "A b",
        "e\u{301}", "\u{e9}",
    ];
    for name in names {
        bucket.put(name, name.to_owned())?;
    }
    for name in names {
        bucket.assert_stored(name, name.as_bytes());
        assert_eq!(bucket.get(name, ReadRange::Whole)?, name.as_bytes());
    }
    names.sort_unstable();
    assert_eq!(bucket.keys(), names);
    for (deleted, name) in names.iter().enumerate() {
        bucket.delete(name)?;
        assert_eq!(bucket.keys(), names[deleted + 1..]);
    }
    Ok(())
}

fn a_name_that_is_the_folder_of_another_is_an_object_of_its_own<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    for name in ["a", "a/b", "a/b/c", "ab"] {
        bucket.put(name, name.to_owned())?;
    }
    assert_eq!(bucket.get("a/b", ReadRange::Whole)?, b"a/b");
    bucket.delete("a/b")?;
    assert_eq!(bucket.keys(), ["a", "a/b/c", "ab"]);
    bucket.delete("a")?;
    assert_eq!(bucket.keys(), ["a/b/c", "ab"]);
    Ok(())
}

fn a_name_of_900_bytes_arrives_byte_for_byte<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let flat = "n".repeat(900);
    // Three bytes each, nine once they are encoded.
    let folders = format!("{}/{}", "京".repeat(100), "東京/".repeat(85));
    let deep = format!("{folders}{}", "x".repeat(900 - folders.len()));
    for name in [flat, deep] {
        assert_eq!(name.len(), 900);
        round_trip(&bucket, &name)?;
    }
    Ok(())
}
