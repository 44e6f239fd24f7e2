//! Warnings about the disk of `StateDirectory` in the mode `WriteBack`, which has the only copy of what is pending.

use std::fs;
use std::path::Path;

use hybrid::WriteBackOptions;

/// What a type of file system means for the files on it.
const KINDS: [(&str, &[&str]); 3] = [
    (
        "in memory, so attachments that are still pending are lost when the machine restarts; use a local disk",
        &["tmpfs", "ramfs"],
    ),
    (
        "a layer of a container, so attachments that are still pending are lost with the container; use a volume",
        &["overlay", "aufs"],
    ),
    (
        "on the network, so each store waits for it; use a local disk",
        &["nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs"],
    ),
];

/// Warns of a disk that loses files or is too small. `folder` is on that disk.
pub(crate) fn warn(folder: &Path, options: &WriteBackOptions) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let size = fs4::total_space(&folder).ok();
    let kind = file_system(&mounts, &folder).and_then(problem);
    let problems = kind.into_iter().chain(size.and_then(|size| too_small(size, options)));
    problems
        .for_each(|problem| tracing::warn!("the disk of StateDirectory ({}) is {problem}", folder.display()));
}

/// The type of the file system that has `folder`, from the list of mounts of Linux.
fn file_system<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        folder.starts_with(&point).then_some((point.len(), source.split(' ').next()?))
    });
    // The last of several mounts in one place hides the others.
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

fn problem(kind: &str) -> Option<String> {
    let (problem, _) = KINDS.iter().find(|(_, kinds)| kinds.contains(&kind))?;
    Some(format!("{problem} (file system {kind})"))
}

/// Why a disk of this size, in bytes, cannot have the cache.
fn too_small(size: u64, options: &WriteBackOptions) -> Option<String> {
    let WriteBackOptions { max_cache, keep_free, .. } = *options;
    let megabytes = size >> 20;
    if max_cache > 0 && keep_free >= size {
        return Some(format!(
            "{megabytes} MB, not more than KeepFreeMB ({}), so nothing is cached",
            keep_free >> 20
        ));
    }
    (max_cache > size).then(|| {
        let asked = max_cache >> 20;
        format!("{megabytes} MB, less than MaxCacheMB ({asked}), so the cache is limited by KeepFreeMB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        23 22 0:21 / /dev/shm rw,nosuid shared:2 - tmpfs tmpfs rw\n\
        24 22 0:40 / /srv/my\\040images rw - nfs4 server:/images rw\n\
        25 22 0:41 / /var/lib rw - overlay overlay rw\n\
        26 25 254:1 / /var/lib rw - xfs /dev/vdb rw\n";

    #[test]
    fn innermost_mount_decides() {
        for (folder, expected) in [
            ("/dev/shm/orthanc/0", "tmpfs"),
            ("/dev/shmem", "ext4"),
            ("/srv/my images/state", "nfs4"),
            ("/var/lib/orthanc", "xfs"),
        ] {
            assert_eq!(file_system(MOUNTS, Path::new(folder)), Some(expected), "{folder}");
        }
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn problems_of_disks() {
        let options = |max_cache: u64, keep_free: u64| WriteBackOptions {
            max_cache: max_cache << 20,
            keep_free: keep_free << 20,
            ..WriteBackOptions::default()
        };
        let disk = 100 << 20;
        for fits in [options(100, 99), options(0, 200)] {
            assert_eq!(too_small(disk, &fits), None, "{fits:?}");
        }
        assert!(too_small(disk, &options(50, 100)).unwrap().contains("nothing is cached"));
        assert!(too_small(disk, &options(101, 10)).unwrap().contains("limited by KeepFreeMB"));
        assert_eq!(problem("ext4"), None);
        assert!(problem("overlay").unwrap().ends_with("(file system overlay)"));
    }
}
