//! What is pending and cached, for `GET /object-storage/status` and Orthanc's metrics.

use std::time::SystemTime;

use hybrid::{Abandoned, CacheTotals, HybridStorage, WriteBack, WriteBackTotals};
use serde_json::{Value, json};

/// The field `WriteBack`. In other modes, `None` unless attachments are left that are not in a bucket.
pub(super) fn to_json(storage: &HybridStorage) -> Option<Value> {
    let local = storage.local()?;
    let totals = local.totals();
    let is_needed = local.is_mode()
        || totals.is_counting
        || totals.pending + totals.quarantined > 0
        || !totals.abandoned.is_empty();
    is_needed.then(|| {
        let mut shown = pending(&totals);
        shown["Folder"] = json!(local.folder());
        shown["Cache"] = local.has_cache().then(|| cache(local, &totals.cache)).into();
        shown
    })
}

fn pending(totals: &WriteBackTotals) -> Value {
    let abandoned = totals.abandoned.iter().map(|Abandoned { folder, bucket, attachments }| {
        json!({"Folder": folder, "Bucket": bucket, "Attachments": attachments})
    });
    json!({
        "Pending": totals.pending,
        "PendingBytes": totals.pending_bytes,
        "OldestSeconds": totals.oldest.map(age),
        "Uploading": totals.uploading,
        "BucketWorks": !totals.is_outage,
        "LastError": totals.last_error,
        "IsCounting": totals.is_counting,
        "Quarantined": totals.quarantined,
        "DirectStores": totals.direct,
        "FreeBytes": totals.free,
        "Abandoned": abandoned.collect::<Vec<_>>(),
    })
}

fn cache(local: &WriteBack, totals: &CacheTotals) -> Value {
    let CacheTotals { files, bytes, complete, hits, misses, evicted, discarded } = totals;
    json!({
        "Files": files,
        "Bytes": bytes,
        "MaxBytes": local.options().max_cache,
        "IsCounting": !complete,
        "Hits": hits,
        "Misses": misses,
        "Evicted": evicted,
        "Discarded": discarded,
    })
}

/// The metrics, with their names. None without a state directory.
pub(super) fn metrics(storage: &HybridStorage) -> Vec<(&'static str, u64)> {
    let Some(local) = storage.local() else { return Vec::new() };
    let totals = local.totals();
    let abandoned = totals.abandoned.iter().map(|abandoned| abandoned.attachments).sum();
    let CacheTotals { files, bytes, complete: _, hits, misses, evicted, discarded } = totals.cache;
    let mut metrics = vec![
        ("pending_files", totals.pending),
        ("pending_bytes", totals.pending_bytes),
        ("pending_oldest_seconds", totals.oldest.map_or(0, age)),
        ("pending_uploads_running", totals.uploading),
        ("pending_outage", u64::from(totals.is_outage)),
        ("quarantined_files", totals.quarantined),
        ("abandoned_files", abandoned),
        ("direct_stores", totals.direct),
        ("cache_files", files),
        ("cache_bytes", bytes),
        ("cache_hits", hits),
        ("cache_misses", misses),
        ("cache_evicted", evicted),
        ("cache_discarded", discarded),
    ];
    metrics.extend(totals.free.map(|free| ("state_free_bytes", free)));
    metrics
}

/// In seconds.
fn age(since: SystemTime) -> u64 {
    since.elapsed().unwrap_or_default().as_secs()
}
