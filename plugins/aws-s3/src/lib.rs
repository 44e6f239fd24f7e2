//! The AWS S3 plugin.
