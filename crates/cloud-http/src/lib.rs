//! The HTTP client that carries the requests of `object_store` to a cloud.
//!
//! `object_store` implements the protocol of each cloud and sends its requests through an [`HttpService`].
//! [`CloudHttp`] implements that trait with `reqwest`, and adds:
//!
//! - a maximum number of connections, used in the order of the requests;
//! - stall detection: an exchange fails if no data is transferred for a while, but may take any time as a
//!   whole;
//! - trust in certificates of servers themselves, and proxies for some hosts only;
//! - redirects within a site, which keep the method and the body (see [`redirect_target`]);
//! - signs that credentials or the time of a signature were refused (see [`Exchange::renewed`]);
//! - payloads that are borrowed from the caller and released as soon as the request ends (see
//!   [`with_lent_payload`]);
//! - several requests in the body of one ([`BatchRequest`]), and lists of objects ([`ListPage`]);
//! - answers that differ from what `object_store` demands are completed: no `ETag`, no `Content-Length`, a whole
//!   object for a range;
//! - details of the response that `object_store` drops: status, error code, request id, `Retry-After`,
//!   [`Checksum`] and [`ArchiveState`] (see [`observe`]).
//!
//! The client does not retry; the crate `bucket` does. Credentials are left to `object_store`;
//! [`CredentialError`] only marks their errors, so that `bucket` can classify them, and [`TokenHttp`] caps the
//! lifetimes of tokens.
//!
//! # Example
//!
//! `object_store` takes the client through `with_http_connector` of its builders. It can also be used
//! directly:
//!
//! ```
//! use cloud_http::{CloudHttp, HttpOptions, TransportError, observe};
//! use object_store::ClientOptions;
//! use object_store::client::{HttpConnector, HttpRequestBody};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = CloudHttp::new(&HttpOptions::default())?.connect(&ClientOptions::new())?;
//! let request = http::Request::get("http://127.0.0.1:1/").body(HttpRequestBody::empty())?;
//! let (result, exchange) = observe(client.execute(request)).await;
//! match result {
//!     Ok(response) => println!("status {}, checksum {:?}", response.status(), exchange.checksum),
//!     Err(error) => println!("{:?}", TransportError::find(&error)),
//! }
//! assert_eq!(exchange.requests, 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`HttpService`]: object_store::client::HttpService

mod archive;
mod background;
mod batch;
mod checksum;
mod client;
mod clock;
mod document;
mod download;
mod error;
mod error_body;
mod exchange;
mod foreign;
mod lifetime;
mod listing;
mod mend;
mod names;
mod proxy;
mod redact;
mod redirect;
mod renewal;
mod retry_after;
mod scheme;
mod server;
mod stall;
mod tls;
mod upload;

pub use archive::ArchiveState;
pub use background::{in_background, urgently};
pub use batch::{BatchAnswer, BatchRequest};
pub use checksum::{Checksum, Hasher, Verifier};
pub use client::{CloudHttp, HttpOptions, no_retries};
pub use clock::{Clock, correction as clock_correction, server_time};
pub use document::{key_service_answer, small_body};
pub use error::{CredentialError, HttpConfigError, TransportError};
pub use exchange::{Exchange, Refusal, observe, observe_nested};
pub use lifetime::TokenHttp;
pub use listing::{ListPage, ListRequest, ListedObject, NextPage};
pub use mend::NO_ETAG;
pub use names::{hiding_names, without_name};
pub use proxy::proxy_for;
pub use redact::one_line;
pub use redirect::{MAX_REDIRECTS, redirect_target};
pub use renewal::Renewable;
pub use stall::Progress;
pub use upload::with_lent_payload;
