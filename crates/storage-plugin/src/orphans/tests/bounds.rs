//! Orphans that are kept, because they may be of something else.

use super::*;

#[test]
fn key_vault_blobs_are_kept_if_there_is_another_root_path() {
    let mut setup = Setup::new(3);
    let uuid = attachment(77).uuid;
    let legacy = format!("b/00/00/{uuid}");
    let others =
        [format!("b/.orthanc-object-storage/databases/{:0>32}", 7), format!("b/{}", name(77)), legacy];
    for other in &others {
        setup.put(other);
        let blobs = [format!("{uuid}-1"), format!("{uuid}-1.info")];
        blobs.iter().for_each(|blob| setup.put(blob));
        setup.store(78);
        setup.search(false, 0.0);
        let (content, findings) = setup.search(true, 0.0);
        assert_eq!((&content["DeletedObjects"], &content["NotDeleted"]), (&1.into(), &2.into()), "{other}");
        assert_eq!(content["ForeignObjects"], 1, "{other}");
        let kept = findings.iter().filter(|(problem, _)| problem == "not-deleted");
        assert_eq!(kept.map(|(_, object)| object.clone()).collect::<Vec<_>>(), blobs.map(|blob| url(&blob)));
        setup.remove(other);
    }
    setup.search(false, 0.0);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], &content["NotDeleted"]), (&2.into(), &0.into()));
}

#[test]
fn deletions_that_begin_after_the_index_was_read_are_noticed() {
    let setup = Setup::new(3);
    let markers = setup.finder.state.as_ref().unwrap().markers();
    [77, 78].into_iter().for_each(|number| setup.store(number));
    markers.add(&attachment(77)).unwrap();
    let work = setup.finder.work(Parameters { delete: false, min_age_hours: 0.0 });
    let _turn = work.enter(&Arc::new(Family::default())).unwrap();
    // The first portion only begins to read the folders of the state directory.
    assert!(matches!(work.after().unwrap(), After::More(_)));
    markers.add(&attachment(78)).unwrap();
    let mut pending = 0;
    while let After::More(handled) = work.after().unwrap() {
        pending += handled.counts.iter().filter(|(count, _)| *count == "PendingDeletions").count();
    }
    assert_eq!(pending, 2);
}

#[test]
fn orphans_from_before_a_reencryption_are_deleted() {
    let mut setup = Setup::new(3);
    setup.store(77);
    setup.search(false, 0.0);
    // All objects of attachments are stored again, later than the orphan.
    (0..3).for_each(|number| setup.remove(&name(number)));
    (0..3).for_each(|number| setup.store(number));
    let (content, findings) = setup.search(true, 0.0);
    assert_eq!(
        (&content["DeletedObjects"], &content["OlderThanIndex"]),
        (&1.into(), &0.into()),
        "{findings:?}"
    );
    // Without the marker, nothing is known of the time before.
    setup.remove(&format!(".orthanc-object-storage/databases/{:0>32}", 1));
    setup.store(78);
    (0..3).for_each(|number| setup.remove(&name(number)));
    (0..3).for_each(|number| setup.store(number));
    setup.search(false, 0.0);
    let (content, findings) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], &content["OlderThanIndex"]), (&0.into(), &1.into()));
    assert!(findings.contains(&("not-deleted".to_owned(), url(&name(78)))), "{findings:?}");
}
