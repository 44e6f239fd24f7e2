//! Checks of WCAG 2.1 at levels A and AA by axe-core, which `cargo xtask install` installs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Browser;

/// The folder of `cargo xtask install`, below cargo's target folder.
const FOLDER: &str = "tools/axe";

/// The script, below that folder.
const SCRIPT: &str = "node_modules/axe-core/axe.min.js";

/// Runs all rules of WCAG 2.1 that are decided by a program. Elements that axe-core cannot decide about are none of its
/// violations.
const RUN: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'];
    const found = await axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']});
    return found.violations.flatMap(rule => rule.nodes.map(
        node => `${rule.id}: ${rule.help}: ${node.target.join(' ')}: ${node.failureSummary}`));
";

impl Browser {
    /// Returns the violations of WCAG 2.1 AA that axe-core finds in the page as it is shown.
    pub fn violations(&self) -> Result<Vec<String>> {
        let is_loaded = self.run("return typeof axe === 'object'")? == true;
        if !is_loaded {
            self.run(&axe()?)?;
        }
        let script = format!("return (async () => {{ {RUN} }})()");
        let found = self.run(&script)?;
        let list = found.as_array().context("no list")?;
        Ok(list.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Returns the elements of a page that are wider than its window, if the page can be scrolled sideways, and those with
    /// a scroll bar for a few pixels.
    pub fn overflow(&self) -> Result<Vec<String>> {
        let found = self.run(
            "const all = [...document.querySelectorAll('body *')];
             const name = element => element.outerHTML.slice(0, 150);
             const isScrolled = (element, length, shown, overflow) =>
                 length > shown && length < shown + 6 && /auto|scroll/.test(getComputedStyle(element)[overflow]);
             const found = all.filter(element =>
                 isScrolled(element, element.scrollHeight, element.clientHeight, 'overflowY')
                 || isScrolled(element, element.scrollWidth, element.clientWidth, 'overflowX'));
             const {scrollWidth} = document.documentElement;
             if (scrollWidth <= innerWidth) return found.map(name);
             const wide = all.filter(element => element.getBoundingClientRect().right > innerWidth + 0.5);
             return [`${scrollWidth} > ${innerWidth}`].concat(wide.slice(0, 9).map(name));",
        )?;
        let list = found.as_array().context("no list")?;
        Ok(list.iter().map(Value::to_string).collect())
    }

    /// Checks that the element with the focus shows it by an outline, a border or a shadow.
    pub fn shows_focus(&self) -> Result<bool> {
        let script = "
            const element = document.activeElement;
            const style = getComputedStyle(element);
            const outline = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
            return outline || style.boxShadow !== 'none'";
        Ok(self.run(script)? == true)
    }
}

fn axe() -> Result<String> {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target");
    let program = env::current_exe()?;
    let folders = target.iter().map(PathBuf::as_path).chain(program.ancestors()).chain([workspace.as_path()]);
    let mut files = folders.map(|folder| folder.join(FOLDER).join(SCRIPT));
    let file =
        files.find(|file| file.is_file()).context("axe-core is not installed; run `cargo xtask install`")?;
    fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}
