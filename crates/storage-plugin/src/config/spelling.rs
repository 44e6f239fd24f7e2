//! Recognizes misspelled names of options and sections.

/// Names shorter than this resemble only names that differ in one letter: in so few letters, two are a different word.
const SHORT: usize = 6;

/// Whether `name` is most likely a misspelling of `known`: it differs in at most two letters, not counting their case.
pub(crate) fn resembles(name: &str, known: &str) -> bool {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let known: Vec<char> = known.to_lowercase().chars().collect();
    let limit = if known.len() < SHORT { 1 } else { 2 };
    name.len().abs_diff(known.len()) <= limit && distance(&name, &known) <= limit
}

/// Whether `name` is a comment: JSON has none, so people write `"_comment"`, or put a sign in front of an option.
pub(crate) fn is_comment(name: &str) -> bool {
    !name.starts_with(char::is_alphanumeric)
}

/// The number of letters to insert, delete or replace to get from one text to the other (Levenshtein).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_names_are_recognized() {
        for (name, known) in [
            ("StorageEncyption", "StorageEncryption"),
            ("BuckeName", "BucketName"),
            ("bucketname", "BucketName"),
            ("Bucket_Name", "BucketName"),
            ("BukcetName", "BucketName"),
            ("AWSS3Storage", "AwsS3Storage"),
            ("AWS S3 Storage", "AwsS3Storage"),
            ("maxRetrys", "MaxRetries"),
            ("Tag", "Tags"),
            ("Prøxy", "Proxy"),
        ] {
            assert!(resembles(name, known), "{name}");
        }
    }

    #[test]
    fn other_words_are_not() {
        for (name, known) in [
            ("", "Tags"),
            ("Type", "Tags"),
            ("Pray", "Proxy"),
            ("BucketNameOfTest", "BucketName"),
            ("HttpProxy", "Proxy"),
            ("StorageDirectory", "StateDirectory"),
            ("StorageCompression", "StorageEncryption"),
        ] {
            assert!(!resembles(name, known), "{name}");
        }
    }

    #[test]
    fn options_do_not_resemble_each_other() {
        // Those of all clouds: one may stand in the section of another.
        let options = [
            "AccessKey",
            "AccessTier",
            "AccountKey",
            "AccountName",
            "BlobEndpoint",
            "BucketName",
            "CheckWrite",
            "Checksum",
            "ConnectTimeout",
            "ConnectionString",
            "ConnectionTimeout",
            "ContainerName",
            "CreateContainerIfNotExists",
            "DeletionDelay",
            "EnableAwsSdkLogs",
            "EnableHttpLogs",
            "EnableLegacyBackslashNames",
            "EnableLegacyUnknownFiles",
            "EnablePage",
            "EnableStorage",
            "EncryptionEnabled",
            "Endpoint",
            "HybridMode",
            "KeyDecayCount",
            "KeyPoolSize",
            "AzureKeyVault",
            "KmsKeyId",
            "MaxConnections",
            "MaxRetries",
            "MigrationFromFileSystemEnabled",
            "Proxy",
            "Region",
            "RequestTimeout",
            "RootPath",
            "SecretKey",
            "ServerSideEncryption",
            "ServiceAccountFile",
            "SessionToken",
            "StateDirectory",
            "StorageClass",
            "StorageEncryption",
            "StorageStructure",
            "StowRs",
            "Tags",
            "TransferBufferSize",
            "TransferPoolSize",
            "UseTransferManager",
            "Verification",
            "VerifyChecksums",
            "VirtualAddressing",
            "WriteBack",
        ];
        for (index, one) in options.iter().enumerate() {
            for other in &options[index + 1..] {
                assert!(!resembles(one, other), "{one}, {other}");
            }
        }
        for section in ["AzureBlobStorage", "GoogleCloudStorage", "BlobStorage"] {
            assert!(!resembles(section, "AwsS3Storage"), "{section}");
        }
    }

    #[test]
    fn names_with_a_leading_sign_are_comments() {
        for comment in ["_comment", "//BucketName", "#Region", "$schema", "-Tags", ""] {
            assert!(is_comment(comment), "{comment}");
        }
        assert!(!is_comment("BucketName"));
    }
}
