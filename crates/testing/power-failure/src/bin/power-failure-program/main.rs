//! The programs that the tests record: `power-failure-program NAME TREE`.

mod write_back;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use hybrid::{FileStorage, FileStorageOptions, StateDirectory};
use power_failure::{attachment, content, event, purpose};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, tree] = &arguments[..] else { bail!("two arguments expected") };
    let tree = Path::new(tree);
    match program.as_str() {
        "files" => store_files(tree),
        "markers" => mark_deletions(tree),
        "write-back" => write_back::run(tree, false),
        "write-back-resumed" => write_back::run(tree, true),
        "take-over" => write_back::take_over(tree),
        "unseen" => change_unseen(tree),
        variant => store_wrongly(tree, variant),
    }
}

/// Stores attachments, some of which share both folders, one, or none.
fn store_files(tree: &Path) -> Result<()> {
    let files = FileStorage::new(tree, FileStorageOptions { sync: true });
    files.check_writable()?;
    for number in 0..12 {
        let attachment = attachment(number)?;
        files.create(&attachment.uuid, &content(attachment.uuid.as_str()))?;
        event(&format!("stored {}", attachment.uuid))?;
    }
    Ok(())
}

/// Marks attachments as deleted, with a sync after every third.
fn mark_deletions(tree: &Path) -> Result<()> {
    let state = StateDirectory::open(tree, &purpose())?;
    for number in 0..12 {
        state.markers().add(&attachment(number)?)?;
        if number % 3 == 2 {
            state.markers().sync()?;
            event(&format!("marked {}", number + 1))?;
        }
    }
    Ok(())
}

/// Stores an attachment as `files` does, with one mistake.
fn store_wrongly(tree: &Path, mistake: &str) -> Result<()> {
    let attachment = attachment(0)?;
    let uuid = attachment.uuid.as_str();
    let (outer, inner) = (tree.join(&uuid[..2]), tree.join(&uuid[..2]).join(&uuid[2..4]));
    let (temporary, path) = (tree.join("tmp/file"), inner.join(uuid));
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let sync_unless = |mistakes: &str, path: &Path| if mistakes == mistake { Ok(()) } else { sync(path) };

    fs::create_dir_all(&inner)?;
    fs::create_dir(tree.join("tmp"))?;
    let mut file = File::create(&temporary)?;
    file.write_all(&content(attachment.uuid.as_str()))?;
    match mistake {
        "late-file" => {
            fs::rename(&temporary, &path)?;
            sync(&path)?;
        }
        _ => {
            sync_unless("no-file", &temporary)?;
            fs::rename(&temporary, &path)?;
        }
    }
    sync_unless("no-inner", &inner)?;
    sync_unless("no-outer", &outer)?;
    sync_unless("no-root", tree)?;
    event(&format!("stored {}", attachment.uuid))
}

/// Changes the tree so that the recorder does not notice.
fn change_unseen(tree: &Path) -> Result<()> {
    let status = Command::new("touch").arg(tree.join("file")).env_remove("LD_PRELOAD").status();
    ensure!(status.context("touch")?.success());
    Ok(())
}
