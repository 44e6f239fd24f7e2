//! `POST /object-storage/orphans`: finds the objects and files that belong to no attachment of Orthanc's index.
//!
//! The whole index is read first, then the bucket is listed: an attachment that is stored meanwhile has an object that is
//! too young to be an orphan. Orphans are deleted only if the search before has found them too, and if nothing suggests
//! that the index is not the one of this bucket (see `refusal`).
//!
//! | module | contents |
//! | --- | --- |
//! | `request` | the route, and saved jobs |
//! | `work` | the job |
//! | `search` | one search, in portions |
//! | `bucket` | what the list of the bucket says |
//! | `removal` | deletes orphans |
//! | `index` | the UUIDs of all attachments |
//! | `database` | the markers of databases in the bucket |
//! | `earlier` | the report of the search before |
//! | `refusal` | why nothing is deleted |
//! | `findings` | what the report says |

mod bucket;
mod database;
mod earlier;
mod findings;
mod index;
mod refusal;
mod removal;
mod request;
mod search;
mod task;
#[cfg(test)]
mod tests;
mod work;

pub(crate) use database::{Database, Server, keep_marker};
pub(crate) use request::{resume_find, start_find};
pub(crate) use work::Finder;

/// The job's type in Orthanc.
const JOB_TYPE: &str = "FindOrphans";
