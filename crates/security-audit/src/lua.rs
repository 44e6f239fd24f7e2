//! Lua scripts.

/// The function that Orthanc calls for each HTTP request.
const FILTER: &str = "IncomingHttpRequestFilter";

/// Whether a script defines Orthanc's filter of incoming HTTP requests. What is commented out does not count.
///
/// ```
/// assert!(security_audit::defines_filter("function IncomingHttpRequestFilter(method, uri)\nreturn true end"));
/// assert!(!security_audit::defines_filter("-- function IncomingHttpRequestFilter(method, uri)"));
/// ```
pub fn defines_filter(script: &str) -> bool {
    let code = without_comments(script);
    code.match_indices(FILTER).any(|(start, name)| {
        let before = code[..start].trim_end();
        let after = code[start + name.len()..].trim_start();
        let is_function = before.ends_with("function") && after.starts_with('(');
        let is_assigned = after.starts_with('=') && !after.starts_with("==");
        is_function || is_assigned
    })
}

/// Removes comments: `--[[ … ]]`, `--[=[ … ]=]`, and `--` to the end of the line. A comment in a string may be removed
/// too: then no filter is found where there may be one.
fn without_comments(script: &str) -> String {
    let mut code = String::with_capacity(script.len());
    let mut rest = script;
    while let Some((before, comment)) = rest.split_once("--") {
        code.push_str(before);
        // Separates what was before the comment from what follows it.
        code.push('\n');
        rest = match end_of_block(comment) {
            Some(end) => comment.split_once(end.as_str()).map_or("", |(_, after)| after),
            None => comment.split_once('\n').map_or("", |(_, after)| after),
        };
    }
    code.push_str(rest);
    code
}

/// The end of a comment block; `None` if the comment ends with the line.
fn end_of_block(comment: &str) -> Option<String> {
    let inner = comment.strip_prefix('[')?;
    let level = inner.len() - inner.trim_start_matches('=').len();
    inner[level..].starts_with('[').then(|| format!("]{}]", "=".repeat(level)))
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
        ] {
            assert!(!defines_filter(script), "{script}");
        }
    }
}
