//! Certificates of clients, as docs/stow-gateway.md configures them: in Orthanc's own HTTP server, and in a proxy.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::Builder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::RELATED;
use super::{gateway, object_of};
use crate::Cloud;
use crate::fixture::eventually;
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        own_server_requires_client_certificates;
    Long:
        proxy_requires_client_certificates;
}

const DOCUMENT: &str = include_str!("../../../../../docs/stow-gateway.md");
/// Maximum time until nginx answers.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the first block of the document in a language that contains `text`.
fn documented(language: &str, text: &str) -> Result<&'static str> {
    let begin = format!("```{language}\n");
    let mut blocks = DOCUMENT.split(&begin).skip(1);
    let block = blocks.find_map(|block| block.split("```").next().filter(|block| block.contains(text)));
    block.with_context(|| format!("no {language} block has {text}"))
}

/// A folder with the certificates of the server, of a client and of a stranger.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, trusted) in [("server", "server.crt"), ("client", "clients"), ("stranger", "stranger.crt")]
        {
            let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
            let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
            fs::write(folder.path().join(format!("{name}.pem")), [&*certificate, &key].concat())?;
            fs::write(folder.path().join(format!("{name}.key")), key)?;
            for extension in if trusted == "clients" { &[".crt", ".pem"][..] } else { &[""] } {
                fs::write(folder.path().join(format!("{trusted}{extension}")), &certificate)?;
            }
        }
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Stores a file with curl. Returns the status of the answer, 000 if there is none.
    fn store(&self, port: u16, path: &str, client: Option<&str>, user: &str, file: &[u8]) -> Result<String> {
        fs::write(self.path("body"), [b"--frontier\r\n\r\n", file, b"\r\n--frontier--\r\n"].concat())?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--write-out", "%{http_code}", "--user", user])
            .args(["--cacert", &self.path("server.crt"), "--output", &self.path("answer")])
            .args(["--header", &format!("Content-Type: {RELATED}"), "--header", "Transfer-Encoding: chunked"])
            .args(["--data-binary", &format!("@{}", self.path("body"))]);
        if let Some(client) = client {
            curl.args(["--cert", &self.path(client)]);
        }
        let output = curl.arg(format!("https://127.0.0.1:{port}{path}")).output().context("curl")?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Checks that only `user` with the client's certificate can store instances. `refused` is the answer to other
    /// certificates, and `elsewhere` to requests without the user that are not for the gateway.
    fn check<C: Cloud>(
        &self,
        fixture: &Fixture<C>,
        (port, user): (u16, &str),
        [refused, elsewhere]: [&str; 2],
    ) -> Result<()> {
        let file = slices(1, 1)?.remove(0);
        let path = "/stow-rs/studies";
        for (path, client, user, expected) in [
            (path, None, user, refused),
            (path, Some("stranger.pem"), user, refused),
            (path, Some("client.pem"), "modality:wrong", "401"),
            ("/instances", Some("client.pem"), "modality:wrong", elsewhere),
        ] {
            let status = self.store(port, path, client, user, &file)?;
            ensure!(status == expected, "{path}, {client:?}: {status} instead of {expected}");
        }
        ensure!(fixture.keys().is_empty(), "{:?}", fixture.keys());
        let status = self.store(port, path, Some("client.pem"), user, &file)?;
        ensure!(status == "200", "{status}\n{}", fixture.orthanc.log());
        ensure!(fixture.keys() == [object_of(&file)?], "{:?}", fixture.keys());
        Ok(())
    }
}

fn with_sections(builder: Builder, sections: &Value) -> Builder {
    let sections = sections.as_object().into_iter().flatten();
    sections.fold(builder, |builder, (name, value)| builder.section(name.as_str(), value.clone()))
}

fn own_server_requires_client_certificates<C: Cloud>() -> Result<()> {
    let certificates = Certificates::new()?;
    let source = documented("c", "SSL_get_peer_certificate")?;
    fs::write(certificates.path("ssl-compat.c"), source)?;
    let library = certificates.path("ssl-compat.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", &library, &certificates.path("ssl-compat.c")])
        .args(["-Wl,-soname,libssl.so", "-Wl,--no-as-needed", "-l:libssl.so.3"])
        .status()?;
    ensure!(compiled.success(), "cc: {compiled}");
    let folder = certificates.0.path().display().to_string();
    let text = documented("json", "SslVerifyPeers")?.replace("/etc/orthanc", &folder);
    let sections: Value = serde_json::from_str(&text)?;
    let fixture = Fixture::<C>::configured(&gateway(&json!({})), |builder| {
        with_sections(builder, &sections).environment("LD_PRELOAD", library).speaking_tls()
    })?;
    let port = fixture.orthanc.http_port();
    certificates.check(&fixture, (port, "modality:a long password"), ["000", "401"])
}

/// A process that ends with this one.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn proxy_requires_client_certificates<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::configured(&gateway(&json!({})), |builder| {
        let users = json!({"modality": "secret"});
        builder
            .section("AuthenticationEnabled", true)
            .section("RegisteredUsers", users)
            .login("modality:secret")
    })?;
    let certificates = Certificates::new()?;
    let folder = certificates.0.path().display().to_string();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let upstream = format!("http://127.0.0.1:{}", fixture.orthanc.http_port());
    let server = documented("nginx", "ssl_verify_client")?
        .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl"))
        .replace("/etc/nginx", &folder)
        .replace("http://127.0.0.1:8042", &upstream);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    fs::write(certificates.path("nginx.conf"), configuration)?;
    let nginx = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "nginx", "-p", &folder, "-c", &certificates.path("nginx.conf")])
        .spawn()
        .context("nginx")?;
    let _nginx = Nginx(nginx);
    let answers = || certificates.store(port, "/", None, "", b"").is_ok_and(|status| status != "000");
    eventually("nginx answers", LIMIT, answers)?;
    certificates.check(&fixture, (port, "modality:secret"), ["400", "404"])
}
