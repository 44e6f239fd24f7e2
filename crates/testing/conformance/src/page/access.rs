//! Who may use the page: users, tokens, path prefixes, and other web sites.

use anyhow::{Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use browser::Browser;
use real_orthanc::Builder;
use serde_json::{Value, json};

use crate::Cloud;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{APP, Nginx, Page, id};

tests! {
    Once:
        page_works_behind_a_prefix_with_users,
        token_of_the_address_is_forwarded,
}

/// What a user of Orthanc may do.
const FILTER: &str = "
function IncomingHttpRequestFilter(method, uri, ip, username, headers)
    if username == 'nobody' then
        return string.find(uri, '^/object%-storage/app') ~= nil
    end
    return username == 'admin' or method == 'GET'
end";

fn with_users(builder: Builder, script: &std::path::Path) -> Builder {
    builder
        .section("AuthenticationEnabled", true)
        .section("RegisteredUsers", json!({"admin": "secret", "reader": "secret", "nobody": "secret"}))
        .section("LuaScripts", json!([script]))
        .login("admin:secret")
}

/// The header of a user who has logged in.
fn login(user: &str, password: &str) -> Value {
    let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
    json!({"Authorization": format!("Basic {encoded}")})
}

/// A page of another site that posts forms to Orthanc, in a frame each.
fn attack(target: &str) -> String {
    let forms: String = [
        ("application/x-www-form-urlencoded", "{\"Depth\":\"exists\"}", ""),
        ("text/plain", "{\"Depth\":\"exists\",\"x\":\"", "\"}"),
        ("multipart/form-data", "x", "y"),
    ]
    .into_iter()
    .map(|(encoding, name, value)| {
        format!(
            "<iframe name='{encoding}'></iframe>
             <form method=post action='{target}' target='{encoding}' enctype='{encoding}'>
             <input name='{name}' value='{value}'></form>"
        )
    })
    .collect();
    let script = format!(
        "window.outcomes = [];
         for (const form of document.forms) form.submit();
         const json = {{method: 'POST', credentials: 'include', body: '{{\"Depth\":\"exists\"}}'}};
         const types = ['text/plain', 'application/json'];
         Promise.allSettled([
             fetch('{target}', {{...json, mode: 'no-cors', headers: {{'Content-Type': types[0]}}}}),
             fetch('{target}', {{...json, headers: {{'Content-Type': types[1]}}}}),
             new Promise(resolve => onload = resolve),
         ]).then(outcomes => window.outcomes = outcomes.map(outcome => outcome.status));"
    );
    format!("<!DOCTYPE html>{forms}<script>{script}</script>")
}

fn page_works_behind_a_prefix_with_users<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("filter.lua");
    std::fs::write(&script, FILTER)?;
    let fixture = Fixture::<C>::configured(&json!({}), |builder| with_users(builder, &script))?;
    let port = fixture.orthanc.http_port();
    let route = format!("http://127.0.0.1:{port}/object-storage/verify");
    let nginx = Nginx::start(port, &attack(&route))?;

    // The browser asks for the password once, and sends it with each request to this server.
    let with_password = nginx.root.replace("http://", "http://admin:secret@");
    let page = Page::open_at(&with_password)?;
    page.wait_for_overview()?;
    let events = page.browser.events()?;
    ensure!(events.console.is_empty(), "{:#?}", events.console);
    ensure!(events.requests.iter().all(|request| request.url.contains("/hospital/pacs/")), "{events:#?}");

    // Another site that the same browser has open. The password is known for Orthanc's own port, too.
    page.browser.open(&format!("http://admin:secret@127.0.0.1:{port}{APP}"))?;
    page.wait_for_overview()?;
    page.browser.open(&nginx.other_site)?;
    page.browser.wait_for("the end of the attack", "return window.outcomes.length > 0")?;
    let sent = page.browser.events()?.requests;
    let posts = sent.iter().filter(|request| request.method == "POST" && request.url == route).count();
    ensure!(posts >= 4, "only {posts} attacks: {sent:#?}");
    let jobs = fixture.rest().get_json("/jobs")?;
    ensure!(jobs == json!([]), "another site has started a job: {jobs}");

    users_see_what_they_may(&nginx.root)
}

fn users_see_what_they_may(root: &str) -> Result<()> {
    // A browser that knows no password.
    let browser = Browser::start()?;
    browser.set_headers(&login("reader", "secret"))?;
    let page = Page::open_in(browser, root)?;
    page.go("jobs")?;
    page.browser.click(&id("verify-all"))?;
    page.browser.click(&id("dialog-ok"))?;
    page.browser.wait_for_text(&id("jobs-said"), "your account may not start a verification")?;
    // Who may open the page and nothing else.
    page.browser.set_headers(&login("nobody", "secret"))?;
    page.show("")?;
    page.browser.wait_for_text(&id("view-overview"), "your account may not")?;
    page.go("jobs")?;
    page.browser.wait_for_text(&id("jobs"), "your account may not")?;
    page.go("studies")?;
    page.browser.click(&id("search-button"))?;
    page.browser.wait_for_text(&id("view-studies"), "your account may not")?;
    Ok(())
}

fn token_of_the_address_is_forwarded<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let page = Page::open(&fixture)?;
    let forwarded = |end: &str| -> Result<Vec<Value>> {
        page.events()?;
        // Otherwise, another fragment would not load the page again.
        page.browser.open("about:blank")?;
        page.show(end)?;
        page.browser.reload()?;
        page.wait_for_overview()?;
        let url = page.browser.url()?;
        ensure!(!url.contains("token"), "the token is in the address bar: {url}");
        let requests = page.expect_quiet()?.requests.into_iter();
        let own = requests.filter(|request| request.url.ends_with("/status"));
        Ok(own.map(|request| json!([request.headers["token"], request.headers["Authorization"]])).collect())
    };
    // A euro sign, which cannot be in a header.
    let refused = forwarded("?token=%E2%82%AC")?;
    ensure!(
        refused.len() >= 2 && refused.iter().all(|headers| *headers == json!([null, null])),
        "{refused:?}"
    );
    let opaque = forwarded("?token=opaque")?;
    ensure!(
        opaque.len() >= 2 && opaque.iter().all(|headers| *headers == json!(["opaque", null])),
        "{opaque:?}"
    );
    let bearer = forwarded("#token=aa.bb.cc")?;
    let expected = json!(["aa.bb.cc", "Bearer aa.bb.cc"]);
    ensure!(bearer.len() >= 2 && bearer.iter().all(|headers| *headers == expected), "{bearer:?}");
    // A link may lead to the page that is open.
    page.show("#token=dd.ee.ff&jobs")?;
    page.browser.wait_for_text(&id("view-jobs"), "Verify the archive")?;
    ensure!(!page.browser.url()?.contains("token"));
    Ok(())
}
