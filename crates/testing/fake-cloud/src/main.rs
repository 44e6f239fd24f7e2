//! The server on its own, for the demonstration: `fake-cloud --port 9000 --bucket demo`.

use std::io::Write;

use fake_cloud::{BucketServer, Options};
use lexopt::prelude::{Long, ValueExt};

const HELP: &str = "\
An S3 server in memory on 127.0.0.1; ends with its standard input.

  --port PORT          a free one without it
  --bucket NAME        a bucket to begin with; may be repeated [bucket]
  --access-key KEY     [test-access-key]
  --secret-key KEY     [test-secret-key]
  --session-token T    requests must bring it
  --region REGION      [us-east-1]
";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The settings of the command line; `None` after help was asked for.
fn options(mut arguments: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    let mut buckets = Vec::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("port") => options.port = Some(arguments.value()?.parse()?),
            Long("bucket") => buckets.push(arguments.value()?.string()?),
            Long("access-key") => options.access_key = arguments.value()?.string()?,
            Long("secret-key") => options.secret_key = arguments.value()?.string()?,
            Long("session-token") => options.session_token = Some(arguments.value()?.string()?),
            Long("region") => options.region = arguments.value()?.string()?,
            Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    if !buckets.is_empty() {
        options.buckets = buckets;
    }
    Ok(Some(options))
}

fn main() -> Outcome<()> {
    let mut out = std::io::stdout();
    let Some(options) = options(lexopt::Parser::from_env())? else {
        out.write_all(HELP.as_bytes())?;
        return Ok(());
    };
    let server = BucketServer::start(options)?;
    writeln!(out, "{}", server.endpoint())?;
    out.flush()?;
    // Whoever started it may simply go away.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
