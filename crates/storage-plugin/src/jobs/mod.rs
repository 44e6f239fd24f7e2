//! Jobs over many attachments: each attachment of the requested resources, or of the whole index, is handed to a
//! [`Work`] in batches.
//!
//! Every job streams (nothing is held but the way to the present resource and one batch), continues after a restart
//! where it was, goes on after individual failures, gives way to the requests of users, and writes what it finds into
//! a report.
//!
//! | module | contents |
//! | --- | --- |
//! | `work` | what a kind of job must provide |
//! | `job` | the job that Orthanc sees: steps, pause, content, saved state |
//! | `run` | the portions of a running job: preparation, batches |
//! | `settling` | batches that have ended, until it is certain what is missing |
//! | `scope` | which attachments: resources, or everything |
//! | `tally` | counts and failures in the content of the job |
//! | `recorder` | the report of one job |
//! | `reports` | the reports in the state directory |
//! | `request` | the routes that start jobs |
//! | `courtesy` | gives way to users' requests |
//! | `alarm` | pauses jobs that wait, and resumes them |

mod alarm;
mod courtesy;
mod error;
mod host;
mod job;
mod prepare;
mod recorder;
mod reports;
mod request;
mod run;
mod scope;
mod settling;
mod tally;
mod work;

pub(crate) use alarm::Alarm;
pub(crate) use courtesy::Courtesy;
pub(crate) use error::JobError;
pub(crate) use host::Host;
#[cfg(test)]
pub(crate) use job::tests::fake;
pub(crate) use job::{StorageJob, resume};
pub(crate) use prepare::Family;
pub(crate) use reports::{Reports, ReportsError};
pub(crate) use request::{JobRequest, bad_request, flag, start_job, submit_job};
pub(crate) use scope::{Scope, by_level_of, ids};
pub(crate) use tally::{DELETED, Form, Tally};
#[cfg(test)]
pub(crate) use work::Failure;
pub(crate) use work::{After, Batch, Finished, Handled, Problem, Turn, Work};
