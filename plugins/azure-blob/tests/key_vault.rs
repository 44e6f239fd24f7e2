//! The client of Azure Key Vault, on a vault with real keys.

#[path = "common/vault.rs"]
mod vault;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use conformance::with;
use crypto_envelope::{FileKey, KeyServiceError, Wrapped};
use fake_cloud::VaultFault::{Body, Echo, Redirect, Silence, Status};
use fake_cloud::VaultOperation::{Challenge, GetKey, Token, UnwrapKey, WrapKey};
use serde_json::{Value, json};
use vault::{HOST, Setup};

const ENTRA_ID: &str = "login.microsoftonline.com";

#[test]
fn file_key_comes_back() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    let key = FileKey::random()?;
    let wrapped = setup.wrap(&*service, &key)?;
    assert_eq!((wrapped.key.as_str(), wrapped.wrapped.len()), (setup.kid.as_str(), 256));
    let other = setup.service(&setup.options())?;
    assert_eq!(setup.unwrap(&*other, &wrapped)?.expose(), key.expose());
    // Each client has its own token, and no other request is needed.
    assert_eq!(setup.hosts(), [ENTRA_ID, HOST, ENTRA_ID, HOST]);
    assert_eq!(setup.vault.take_operations(), [Token, WrapKey, Token, UnwrapKey]);
    setup.round_trip(&*service)?;
    assert_eq!(setup.vault.take_operations(), [WrapKey, UnwrapKey]);
    Ok(())
}

#[test]
fn newest_version_is_asked_for_every_ten_minutes() -> Result<()> {
    let setup = Setup::new()?;
    let newest = with(setup.options(), &json!({"kid": format!("https://{HOST}/keys/Images")}));
    let service = setup.service(&newest)?;
    let first = setup.round_trip(&*service)?;
    assert_eq!(setup.vault.take_operations(), [Token, GetKey, WrapKey, UnwrapKey]);
    assert_eq!(first.key, setup.kid);

    let version = setup.vault.create_key("images")?;
    setup.advance(Duration::from_secs(590));
    assert_eq!(setup.round_trip(&*service)?.key, setup.kid);
    assert_eq!(setup.vault.take_operations(), [WrapKey, UnwrapKey]);
    let restarted = setup.service(&newest)?;
    assert_eq!(setup.round_trip(&*restarted)?.key, format!("https://{HOST}/keys/images/{version}"));
    setup.unwrap(&*restarted, &first).context("the older version")?;
    assert_eq!(setup.vault.take_operations(), [Token, GetKey, WrapKey, UnwrapKey, UnwrapKey]);

    setup.advance(Duration::from_secs(10));
    for _ in 0..2 {
        assert!(setup.round_trip(&*service)?.key.ends_with(&version));
    }
    assert_eq!(setup.vault.take_operations(), [GetKey, WrapKey, UnwrapKey, WrapKey, UnwrapKey]);
    Ok(())
}

#[test]
fn disabled_version_is_replaced_at_once() -> Result<()> {
    let setup = Setup::new()?;
    let newest = with(setup.options(), &json!({"kid": format!("https://{HOST}/keys/images")}));
    let service = setup.service(&newest)?;
    setup.round_trip(&*service)?;
    let version = setup.vault.create_key("images")?;
    setup.vault.enable(setup.kid.rsplit('/').next().unwrap_or_default(), false);
    setup.wrap(&*service, &FileKey::random()?).unwrap_err();
    assert!(setup.round_trip(&*service)?.key.ends_with(&version));
    Ok(())
}

#[test]
fn key_may_be_a_name_in_a_vault() -> Result<()> {
    let setup = Setup::new()?;
    let named = json!({"kid": "images", "baseUrl": format!("https://{HOST}/")});
    let service = setup.service(&with(setup.options(), &named))?;
    assert_eq!(setup.round_trip(&*service)?.key, setup.kid);
    Ok(())
}

#[test]
fn vault_names_its_tenant() -> Result<()> {
    for (host, entra_id) in [
        (HOST, ENTRA_ID),
        ("hospital.managedhsm.azure.net", ENTRA_ID),
        ("hospital.vault.azure.cn", "login.chinacloudapi.cn"),
        ("hospital.vault.usgovcloudapi.net", "login.microsoftonline.us"),
    ] {
        let setup = Setup::new()?;
        let kid = setup.kid.replace(HOST, host);
        let service = setup.service(&with(setup.without_tenant(), &json!({"kid": kid})))?;
        assert_eq!(setup.round_trip(&*service)?.key, kid);
        assert_eq!(setup.hosts(), [host, entra_id, host]);
        assert_eq!(setup.vault.take_operations(), [Challenge, Token, WrapKey, UnwrapKey]);
    }
    Ok(())
}

/// Returns the message of a permanent error.
fn refused<T>(result: Result<T, KeyServiceError>) -> Result<String> {
    let error = result.err().context("no error")?;
    ensure!(!error.is_transient(), "{error}");
    Ok(error.to_string())
}

/// Returns the message of an error that may pass.
fn unavailable<T>(result: Result<T, KeyServiceError>) -> Result<String> {
    let error = result.err().context("no error")?;
    ensure!(error.is_transient(), "{error}");
    Ok(error.to_string())
}

#[test]
fn secret_is_sent_to_entra_id_only() -> Result<()> {
    for (authorization, resource) in [
        ("https://attacker.example/t", "https://vault.azure.net"),
        ("https://login.microsoftonline.com.attacker.example/t", "https://vault.azure.net"),
        ("https://login.microsoftonline.com@attacker.example/t", "https://vault.azure.net"),
        ("http://login.microsoftonline.com/t", "https://vault.azure.net"),
        ("https://login.microsoftonline.com/t", "https://attacker.example"),
        ("https://login.microsoftonline.com/t", "https://other.vault.azure.net"),
    ] {
        let setup = Setup::new()?;
        let challenge = format!("Bearer authorization=\"{authorization}\", resource=\"{resource}\"");
        setup.vault.set_challenge(&challenge);
        let service = setup.service(&setup.without_tenant())?;
        let message = refused(setup.wrap(&*service, &FileKey::random()?))?;
        assert!(message.contains("set tenantId") && !message.contains("attacker"), "{message}");
        assert_eq!(setup.hosts(), [HOST], "{challenge}");
        assert_eq!(setup.vault.take_operations(), [Challenge]);
    }
    Ok(())
}

#[test]
fn redirects_are_not_followed() -> Result<()> {
    for target in
        ["https://attacker.example/", "https://login.windows.net/", "/keys/other/wrapkey?api-version=7.4"]
    {
        for (operation, expected) in
            [(WrapKey, &[Token, WrapKey][..]), (Token, &[Token]), (Challenge, &[Challenge])]
        {
            let setup = Setup::new()?;
            let options = if operation == Challenge { setup.without_tenant() } else { setup.options() };
            setup.vault.fault(operation, &Redirect(target.to_owned()), 1);
            let service = setup.service(&options)?;
            refused(setup.wrap(&*service, &FileKey::random()?))?;
            assert_eq!(setup.vault.take_operations(), expected, "{target}");
        }
    }
    Ok(())
}

#[test]
fn other_keys_cause_no_request() -> Result<()> {
    let setup = Setup::new()?;
    let version = setup.vault.create_key("other")?;
    let service = setup.service(&setup.options())?;
    for key in [
        format!("https://{HOST}/keys/other/{version}"),
        setup.kid.replace(HOST, "other.vault.azure.net"),
        setup.kid.replace(HOST, "attacker.example"),
        setup.kid.replace(HOST, &format!("{HOST}.attacker.example")),
        setup.kid.replace(HOST, &format!("{HOST}@attacker.example")),
        setup.kid.replace(HOST, &format!("{HOST}:8443")),
        setup.kid.replace("https", "http"),
        format!("{}/../../other/{version}", setup.kid),
        String::new(),
    ] {
        assert!(!service.has_key(&key), "{key}");
        let wrapped = Wrapped { key, wrapped: vec![7; 256] };
        let result = setup.unwrap(&*service, &wrapped);
        assert!(matches!(result, Err(KeyServiceError::NotConfigured { .. })), "{result:?}");
    }
    assert!(service.has_key(&setup.kid));
    assert_eq!(setup.vault.take_operations(), []);
    Ok(())
}

#[test]
fn refusals_say_what_to_do() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    let wrapped = setup.round_trip(&*service)?;
    let expect = |result: String, fragments: &[&str]| {
        for fragment in fragments.iter().chain([&"Azure Key Vault: cannot ", &HOST]) {
            assert!(result.contains(fragment), "{fragment:?} is not in {result:?}");
        }
    };

    setup.vault.permit(&[UnwrapKey]);
    let key = FileKey::random()?;
    expect(refused(setup.wrap(&*service, &key))?, &["wrap a file key", "wrapKey", "HTTP 403 Forbidden"]);
    let newest =
        setup.service(&with(setup.options(), &json!({"kid": format!("https://{HOST}/keys/images")})))?;
    expect(refused(setup.wrap(&*newest, &key))?, &["read https", "permissions get", "HTTP 403"]);
    setup.vault.permit(&[GetKey, WrapKey, UnwrapKey]);

    let version = setup.kid.rsplit('/').next().unwrap_or_default();
    setup.vault.enable(version, false);
    expect(
        refused(setup.unwrap(&*service, &wrapped))?,
        &["unwrap a file key", "must be enabled", "it is disabled"],
    );
    setup.vault.enable(version, true);

    let unknown = Wrapped { key: setup.kid.replace(version, "0123"), wrapped: vec![7; 256] };
    expect(refused(setup.unwrap(&*service, &unknown))?, &["check kid", "HTTP 404 KeyNotFound"]);
    let other = setup.vault.create_key("images")?;
    let other = Wrapped { key: setup.kid.replace(version, &other), ..wrapped.clone() };
    expect(refused(setup.unwrap(&*service, &other))?, &["another key", "HTTP 400 BadParameter"]);

    let wrong_secret = setup.service(&with(setup.options(), &json!({"clientSecret": "hunter2"})))?;
    let message = refused(setup.wrap(&*wrong_secret, &key))?;
    expect(message, &["check clientId, clientSecret and tenantId", "HTTP 401 invalid_client: AADSTS7000215"]);
    let wrong_tenant = setup.service(&with(setup.options(), &json!({"tenantId": "other.example"})))?;
    expect(
        refused(setup.wrap(&*wrong_tenant, &key))?,
        &["check clientId, clientSecret and tenantId", "AADSTS90002"],
    );
    Ok(())
}

#[test]
fn refused_token_is_renewed_once() -> Result<()> {
    for (options, renewal) in
        [(Setup::options as fn(&Setup) -> Value, &[Token][..]), (Setup::without_tenant, &[Challenge, Token])]
    {
        let setup = Setup::new()?;
        let service = setup.service(&options(&setup))?;
        setup.round_trip(&*service)?;
        setup.vault.take_operations().clear();
        setup.vault.revoke_tokens();
        setup.round_trip(&*service)?;
        assert_eq!(setup.vault.take_operations(), [&[Challenge], renewal, &[WrapKey, UnwrapKey]].concat());
    }
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    // The service gives out tokens that the vault does not accept.
    setup.vault.fault(Token, &Body(json!({"access_token": "x", "expires_in": 3599}).to_string()), 9);
    let message = refused(setup.wrap(&*service, &FileKey::random()?))?;
    assert!(message.contains("does not accept the token") && message.contains("HTTP 401"), "{message}");
    assert_eq!(setup.vault.take_operations(), [Token, Challenge, Token, Challenge]);
    Ok(())
}

#[test]
fn passing_failures_are_repeated() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    let wrapped = setup.round_trip(&*service)?;
    let key = FileKey::random()?;
    for (status, pause) in [(429, Some(1)), (503, Some(1)), (500, None), (502, None), (504, None)] {
        setup.vault.take_operations().clear();
        setup.vault.fault(WrapKey, &Status(status, pause), 1);
        let start = Instant::now();
        setup.wrap(&*service, &key)?;
        assert!(start.elapsed() >= Duration::from_secs(pause.unwrap_or_default()), "{status}");
        setup.vault.fault(UnwrapKey, &Status(status, None), 2);
        setup.unwrap(&*service, &wrapped)?;
        assert_eq!(setup.vault.take_operations(), [WrapKey, WrapKey, UnwrapKey, UnwrapKey, UnwrapKey]);
    }
    setup.vault.fault(WrapKey, &Status(503, None), 3);
    let message = unavailable(setup.wrap(&*service, &key))?;
    assert!(
        message.contains("temporarily unavailable (HTTP 503") && message.ends_with("after 3 attempts"),
        "{message}"
    );
    assert_eq!(setup.count(WrapKey), 3);
    // Of a proxy.
    setup.vault.fault(WrapKey, &Status(404, None), 3);
    let message = unavailable(setup.wrap(&*service, &key))?;
    assert!(message.contains("does not come from a vault") && message.contains("HTTP 404"), "{message}");
    assert_eq!(setup.count(WrapKey), 3);
    // Longer than anyone waits.
    setup.vault.fault(WrapKey, &Status(429, Some(60)), 1);
    unavailable(setup.wrap(&*service, &key))?;
    assert_eq!(setup.count(WrapKey), 1);
    Ok(())
}

#[test]
fn failures_of_entra_id_and_of_the_challenge_are_repeated() -> Result<()> {
    for operation in [Token, Challenge] {
        let setup = Setup::new()?;
        setup.vault.fault(operation, &Status(503, None), 1);
        setup.round_trip(&*setup.service(&setup.without_tenant())?)?;
        assert_eq!(setup.count(operation), 2, "{operation:?}");
    }
    Ok(())
}

#[test]
fn silence_ends_with_the_patience() -> Result<()> {
    for operation in [Challenge, Token, GetKey, WrapKey] {
        let setup = Setup::new()?;
        let newest = with(setup.without_tenant(), &json!({"kid": format!("https://{HOST}/keys/images")}));
        let service = setup.open(&newest, &json!({"OutageTimeout": 1}))?;
        setup.vault.fault(operation, &Silence, 9);
        let key = FileKey::random()?;
        let message = unavailable(setup.wrap(&*service, &key))?;
        assert!(message.contains("no answer for 1 s (OutageTimeout)"), "{operation:?}: {message}");
        assert_eq!(setup.count(operation), 1);
        setup.vault.clear_faults();
        setup.wrap(&*service, &key)?;
    }
    Ok(())
}

#[test]
fn unreachable_vault_is_unavailable() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.open(&setup.options(), &json!({"MaxRetries": 1, "OutageTimeout": 5}))?;
    let wrapped = setup.round_trip(&*service)?;
    let runtime = setup.into_runtime();
    let result = runtime.block_on(service.unwrap(&wrapped.key, &wrapped.wrapped));
    let message = unavailable(result)?;
    assert!(message.contains("cannot connect to") && message.ends_with("after 2 attempts"), "{message}");
    Ok(())
}

#[test]
fn malformed_answers_are_errors() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    let wrapped = setup.round_trip(&*service)?;
    setup.vault.take_operations().clear();
    let answer = |kid: &str, value: &[u8]| json!({"kid": kid, "value": BASE64.encode(value)}).to_string();
    let key = FileKey::random()?;
    let common = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        json!({"value": "AAAA"}).to_string(),
        json!({"kid": 7, "value": "AAAA"}).to_string(),
        json!({"kid": setup.kid}).to_string(),
        json!({"kid": setup.kid, "value": 7}).to_string(),
        json!({"kid": setup.kid, "value": "no base64!"}).to_string(),
        json!({"kid": setup.kid, "value": "A".repeat(100_000)}).to_string(),
        "[".repeat(60_000),
    ];
    let of_wrap = [
        answer(&setup.kid, b""),
        answer(&setup.kid.replace("images", "other"), &[7; 256]),
        answer("https://attacker.example/keys/images/1", &[7; 256]),
        answer(&format!("https://{HOST}/keys/images"), &[7; 256]),
    ];
    for body in common.iter().chain(&of_wrap) {
        setup.vault.fault(WrapKey, &Body(body.clone()), 1);
        let shown = &body[..body.len().min(80)];
        let message = refused(setup.wrap(&*service, &key)).context(shown.to_owned())?;
        assert!(message.len() < 400 && !message.contains("attacker"), "{message}");
        assert_eq!(setup.count(WrapKey), 1, "{shown}");
    }
    let of_unwrap = [0, 16, 31, 33, 48, 64].map(|length| answer(&setup.kid, &vec![7; length]));
    for body in common.iter().chain(&of_unwrap) {
        setup.vault.fault(UnwrapKey, &Body(body.clone()), 1);
        let shown = &body[..body.len().min(80)];
        let message = refused(setup.unwrap(&*service, &wrapped)).context(shown.to_owned())?;
        assert!(message.len() < 400 && !message.contains("Bwc"), "{message}");
        assert_eq!(setup.count(UnwrapKey), 1, "{shown}");
    }
    setup.unwrap(&*service, &wrapped)?;
    Ok(())
}

#[test]
fn messages_do_not_quote_requests() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    for _ in 0..20 {
        let key = FileKey::random()?;
        let wrapped = setup.wrap(&*service, &key)?;
        let secrets = [BASE64.encode(key.expose()), BASE64.encode(&wrapped.wrapped)];
        setup.vault.fault(WrapKey, &Echo, 1);
        setup.vault.fault(UnwrapKey, &Echo, 1);
        let messages = [refused(setup.wrap(&*service, &key))?, refused(setup.unwrap(&*service, &wrapped))?];
        for message in messages {
            assert!(message.contains("HTTP 400"), "{message}");
            assert!(secrets.iter().all(|secret| !message.contains(&secret[..10])), "{message}");
        }
    }
    let wrong_secret = setup.service(&with(setup.options(), &json!({"clientSecret": "hunter2"})))?;
    let message = refused(setup.wrap(&*wrong_secret, &FileKey::random()?))?;
    assert!(message.contains("Invalid client secret") && !message.contains("hunter2"), "{message}");
    Ok(())
}

#[test]
fn debug_output_has_no_secret() -> Result<()> {
    let setup = Setup::new()?;
    let service = setup.service(&setup.options())?;
    let text = format!("{service:?}");
    assert!(text.contains(HOST) && !text.contains(&setup.client.secret), "{text}");
    Ok(())
}
