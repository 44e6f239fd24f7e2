//! The keyboard.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Browser;

impl Browser {
    /// Types text into the element that has the focus.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.press(text.chars().map(String::from))
    }

    /// Presses Tab.
    pub fn tab(&self) -> Result<()> {
        self.press(["\u{E004}".to_owned()])
    }

    /// Presses Enter.
    pub fn enter(&self) -> Result<()> {
        self.press(["\u{E007}".to_owned()])
    }

    /// Presses Escape.
    pub fn escape(&self) -> Result<()> {
        self.press(["\u{E00C}".to_owned()])
    }

    /// Presses Tab until the element that has the focus matches a CSS selector. Returns whether it ever does within
    /// `limit` presses.
    pub fn tab_to(&self, selector: &str, limit: usize) -> Result<bool> {
        for _ in 0..limit {
            self.tab()?;
            let script = "return document.activeElement?.matches(arguments[0]) ?? false";
            if self.run_with(script, &[json!(selector)])? == true {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Presses and releases keys, one after another. Names of keys are those of WebDriver.
    fn press(&self, keys: impl IntoIterator<Item = String>) -> Result<()> {
        let strokes: Vec<Value> = keys
            .into_iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|action| json!({"type": action, "value": key})))
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.driver.post("actions", &actions)?;
        Ok(())
    }
}
