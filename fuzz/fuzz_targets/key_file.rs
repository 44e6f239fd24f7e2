//! Arbitrary bytes as a key file yield a key or an error. Blanks make no difference, and errors contain
//! nothing of the file.
#![no_main]

use crypto_envelope::parse_key_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let spaced: Vec<u8> = content.iter().flat_map(|&byte| [byte, b'\n', b' ']).collect();
    match (parse_key_file(content), parse_key_file(&spaced)) {
        (Ok(key), Ok(same)) => assert!(key.is_same_as(&same)),
        (Err(_), Err(error)) => {
            let text = format!("{error} {error:?}");
            let words = content.split(|byte| !byte.is_ascii_alphanumeric()).filter_map(|word| std::str::from_utf8(word).ok());
            for word in words.filter(|word| word.len() >= 16) {
                assert!(!text.contains(word));
            }
        }
        (one, other) => panic!("{one:?} and {other:?}"),
    }
});
