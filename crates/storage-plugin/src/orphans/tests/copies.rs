//! Searches with a database that is a copy of another one, or shared with another Orthanc.

use super::*;

/// The marker of a database in the bucket.
fn marker(database: u32) -> String {
    format!(".orthanc-object-storage/databases/{database:0>32}")
}

impl Setup {
    /// The database has had this many changes, the last one at this time.
    fn set_changes(&self, count: u64, date: &'static str) {
        *self.database.1.lock() = Some(count);
        self.database.2.lock().insert(count, date);
    }

    /// A copy of the database from before the last two of five instances, on another machine, which has another id.
    fn restore_elsewhere(&self) {
        [3, 4].into_iter().for_each(|number| self.delete_instance(number));
        *self.database.0.lock() = "2";
        self.set_changes(60, "20261127T030000");
    }
}

#[test]
fn older_copy_on_another_machine_deletes_nothing() {
    let mut setup = Setup::new(5);
    setup.set_changes(100, "20261127T120000");
    setup.search(false, 0.0);
    setup.restore_elsewhere();
    for _ in 0..2 {
        let reason = setup.refused();
        assert!(reason.contains("number 60, and had 100") && reason.contains(&url(&marker(1))), "{reason}");
    }
    // The copy has had more changes since. Those that the marker is about were others.
    setup.set_changes(200, "20261128T120000");
    setup.database.2.lock().insert(100, "20261128T110000");
    for _ in 0..2 {
        let reason = setup.refused();
        assert!(reason.contains("20261128T110000, and was of 20261127T120000"), "{reason}");
    }
    // Without dates, the objects show it.
    setup.database.2.lock().clear();
    for _ in 0..2 {
        let reason = setup.refused();
        assert!(reason.contains(&attachment(3).uuid.to_string()), "{reason}");
    }
    setup.remove(&marker(1));
    setup.search(true, 0.0);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["OrphanObjects"], setup.names().len()), (&0.into(), 3), "{content}");
}

#[test]
fn copy_and_original_notice_each_other() {
    let mut setup = Setup::new(5);
    setup.set_changes(100, "20261127T120000");
    setup.search(false, 0.0);
    // The copy has an attachment of its own, and the original one that the copy lacks.
    setup.delete_instance(4);
    *setup.database.0.lock() = "2";
    setup.set_changes(70, "20261127T130000");
    let reason = setup.refused();
    assert!(reason.contains(&url(&marker(1))), "{reason}");
    setup.fake.rest.deleted.lock().clear();
    setup.store(77);
    *setup.database.0.lock() = "1";
    setup.set_changes(150, "20261127T140000");
    setup.database.2.lock().insert(70, "20261127T110000");
    for _ in 0..2 {
        let reason = setup.refused();
        assert!(reason.contains(&url(&marker(2))), "{reason}");
    }
}

#[test]
fn noticed_copy_is_noticed_by_the_other_id_too() {
    let mut setup = Setup::new(5);
    setup.set_changes(100, "20261127T120000");
    setup.search(false, 0.0);
    *setup.database.1.lock() = Some(60);
    setup.delete_instance(4);
    setup.search(false, 0.0);
    *setup.database.0.lock() = "2";
    setup.set_changes(200, "20261128T120000");
    for _ in 0..2 {
        let reason = setup.refused();
        assert!(reason.contains("noticed earlier") && reason.contains(&url(&marker(1))), "{reason}");
    }
}

#[test]
fn deletions_that_another_orthanc_delays_are_no_older_copy() {
    let mut setup = Setup::new(10);
    setup.set_changes(100, "20261127T120000");
    setup.search(false, 0.0);
    // Another Orthanc on this database has deleted instances. Their objects remain for its `DeletionDelay`.
    setup.delete_instance(9);
    setup.store(77);
    setup.search(false, 24.0);
    let read = |setup: &Setup| {
        let (objects, name) = (setup.objects.clone(), format!("databases/{:0>32}", 1));
        let read = async move { objects.read_note(&name, bucket::RetryPolicy::default()).await };
        let content = setup.runtime.run(read).unwrap().unwrap();
        serde_json::from_slice::<Value>(&content).unwrap()
    };
    assert_eq!(read(&setup)["Older"], false);
    // The change is one of a deleted resource, too: nothing is known until the object is gone.
    setup.delete_instance(8);
    setup.database.2.lock().clear();
    *setup.database.1.lock() = Some(110);
    setup.search(false, 0.0);
    assert!(setup.refused().contains("seems to be an older copy"));
    setup.remove(&name(8));
    setup.remove(&name(9));
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], &content["DeletionRefused"]), (&1.into(), &Value::Null));
}

#[test]
fn earlier_report_counts_after_the_id_has_changed() {
    let mut setup = Setup::new(5);
    setup.store(77);
    setup.set_changes(100, "20261127T120000");
    setup.search(false, 0.0);
    *setup.database.0.lock() = "2";
    setup.database.1.lock().replace(120);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], &content["DeletionRefused"]), (&1.into(), &Value::Null));
}
