//! Answers of proxies during transfers in parts.

use anyhow::Result;
use bucket::{Cause, ReadRange};
use fake_cloud::{Fault, FaultRule, Odd, Operation};
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, failed};
use crate::client::multipart::{LARGE, known_to_be_slow};
use crate::fixture::content;

tests! {
    EveryCloud:
        web_page_confirms_no_part,
        web_page_is_not_a_missing_object,
}

const STEPS: [Operation; 3] =
    [Operation::CreateMultipartUpload, Operation::UploadPart, Operation::CompleteMultipartUpload];

fn web_page_confirms_no_part<C: Cloud>() -> Result<()> {
    for page in [Odd::WebPage(200), Odd::WebPage(404)] {
        let client = known_to_be_slow::<C>()?;
        for step in STEPS {
            client.server.faults().push(FaultRule::new(Fault::Odd(page)).on(step));
        }
        client.put("object", content(LARGE))?;
        client.assert_stored("object", &content(LARGE));
        let completions = client.server.requests().of(Operation::CompleteMultipartUpload);
        assert_eq!(completions, 2, "{page:?}");
    }
    Ok(())
}

fn web_page_is_not_a_missing_object<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({"MaxRetries": 1}))?;
    client.put("object", "content")?;
    client.server.faults().push(FaultRule::new(Fault::Odd(Odd::WebPage(404))).times(usize::MAX));
    client.server.reset_counts();
    for range in [ReadRange::Whole, ReadRange::Range(0..1), ReadRange::UpTo(0..1)] {
        let error = failed(client.get("object", range))?;
        assert_eq!((error.cause, error.transient, error.attempts), (Cause::Foreign, true, 2));
    }
    let error = failed(client.delete("object"))?;
    assert_eq!((error.cause, error.transient), (Cause::Foreign, true));
    assert_eq!(client.requests(), 8);
    client.server.faults().clear();
    assert_eq!(client.keys(), ["object"]);
    Ok(())
}
