//! Lua scripts.

/// The function that Orthanc calls for each HTTP request.
const FILTER: &str = "IncomingHttpRequestFilter";

/// Whether a script defines Orthanc's filter of incoming HTTP requests: as a global function, which is not removed again.
/// What is in comments and strings does not count.
///
/// ```
/// assert!(security_audit::defines_filter("function IncomingHttpRequestFilter(method, uri)\nreturn true end"));
/// assert!(!security_audit::defines_filter("-- function IncomingHttpRequestFilter(method, uri)"));
/// ```
pub fn defines_filter(script: &str) -> bool {
    let code = without_text(script);
    let uses = code.match_indices(FILTER);
    let definitions =
        uses.filter_map(|(start, name)| definition(&code[..start], &code[start + name.len()..]));
    definitions.last().unwrap_or(false)
}

/// Whether the name between `before` and `after` is defined as a function (`true`) or gets another value (`false`); `None`
/// if it is only used, or is another name.
fn definition(before: &str, after: &str) -> Option<bool> {
    if before.ends_with(is_in_name) || after.starts_with(is_in_name) {
        return None;
    }
    let (before, after) = (before.trim_end(), after.trim_start());
    if let Some(before) = without_word(before, "function") {
        return (after.starts_with('(') && without_word(before, "local").is_none()).then_some(true);
    }
    let value = after.strip_prefix('=').filter(|value| !value.starts_with('='))?;
    // A field of a table, a local variable, or one of several variables.
    if before.ends_with(['.', ':', ',']) || without_word(before, "local").is_some() {
        return None;
    }
    let rest = value.trim_start().strip_prefix("function");
    Some(rest.is_some_and(|rest| !rest.starts_with(is_in_name)))
}

fn is_in_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// What is before a word at the end of the code.
fn without_word<'c>(code: &'c str, word: &str) -> Option<&'c str> {
    let before = code.strip_suffix(word)?;
    (!before.ends_with(is_in_name)).then(|| before.trim_end())
}

/// Removes comments, and what is in strings: `--[[ … ]]`, `--` to the end of the line, `"…"`, `'…'` and `[[ … ]]`.
fn without_text(script: &str) -> String {
    let mut code = String::with_capacity(script.len());
    let mut rest = script;
    while let Some(start) = rest.find(['-', '"', '\'', '[']) {
        let text = &rest[start..];
        let after = if let Some(comment) = text.strip_prefix("--") {
            Some(
                after_block(comment)
                    .unwrap_or_else(|| comment.split_once('\n').map_or("", |(_, after)| after)),
            )
        } else if text.starts_with('[') {
            after_block(text)
        } else if text.starts_with('-') {
            None
        } else {
            Some(after_string(text))
        };
        code.push_str(&rest[..start]);
        match after {
            // Separates what was before from what follows.
            Some(after) => {
                code.push_str(if text.starts_with('-') { "\n" } else { "\"\"" });
                rest = after;
            }
            None => {
                code.push_str(&text[..1]);
                rest = &text[1..];
            }
        }
    }
    code.push_str(rest);
    code
}

/// What follows a string, which begins with its quotation mark and ends with the line at the latest.
fn after_string(text: &str) -> &str {
    let quote = text.chars().next();
    let mut letters = text.char_indices().skip(1);
    while let Some((position, letter)) = letters.next() {
        match letter {
            // The next letter is part of the string.
            '\\' => _ = letters.next(),
            '\n' => return &text[position..],
            _ if Some(letter) == quote => return &text[position + letter.len_utf8()..],
            _ => {}
        }
    }
    ""
}

/// What follows a block, `[[ … ]]` or `[=[ … ]=]`; `None` if `text` does not begin with one.
fn after_block(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?;
    let level = inner.len() - inner.trim_start_matches('=').len();
    let content = inner[level..].strip_prefix('[')?;
    let end = format!("]{}]", "=".repeat(level));
    Some(content.split_once(end.as_str()).map_or("", |(_, after)| after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_defines_the_filter() {
        for script in [
            "function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)\n  return false\nend",
            "x = 1 -- a\nIncomingHttpRequestFilter = function(method)\nend",
            "--[[ block ]] function IncomingHttpRequestFilter (method) end",
            "local a = t[1] - 2 -- it's\nfunction IncomingHttpRequestFilter(method) end",
            "local a = 'it\\'s' function IncomingHttpRequestFilter(method) end",
            "IncomingHttpRequestFilter = nil\nfunction IncomingHttpRequestFilter(method) end",
        ] {
            assert!(defines_filter(script), "{script}");
        }
        for script in [
            "",
            "-- function IncomingHttpRequestFilter(method)",
            "--[[\nfunction IncomingHttpRequestFilter(method)\nend\n]]",
            "--[==[ ]] function IncomingHttpRequestFilter(method) ]==]",
            "--[[ unfinished function IncomingHttpRequestFilter()",
            "function OnStoredInstance() if IncomingHttpRequestFilter == nil then end end",
            "print('IncomingHttpRequestFilter')",
            "local function IncomingHttpRequestFilter(method) end",
            "local IncomingHttpRequestFilter = function(method) end",
            "DisabledIncomingHttpRequestFilter = function(method) end",
            "function DisabledIncomingHttpRequestFilter(method) end",
            "function IncomingHttpRequestFilter2(method) end",
            "IncomingHttpRequestFilter = nil",
            "IncomingHttpRequestFilter = functions",
            "function IncomingHttpRequestFilter(method) end\nIncomingHttpRequestFilter = nil",
            "t.IncomingHttpRequestFilter = function(method) end",
            "function t.IncomingHttpRequestFilter(method) end",
            "function t:IncomingHttpRequestFilter(method) end",
            "print('function IncomingHttpRequestFilter(method)')",
            "print(\"a \\\" function IncomingHttpRequestFilter(method)\")",
            "print([==[ function IncomingHttpRequestFilter(method) ]] ]==])",
        ] {
            assert!(!defines_filter(script), "{script}");
        }
    }
}
