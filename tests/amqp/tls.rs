//! TLS: a broker with a certificate of its own authority, and clients with and without one.

use std::path::{Path, PathBuf};
use std::process::Command;

use celeriac::amqp::{Connection, ConnectionOptions, Publisher, QueueSpec, TlsOptions, Topology};
use xtask::node::TlsFiles;
use xtask::{NodeOptions, PrivateNode};

use crate::setup::{numbered, options, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_trusted_by_its_authority_and_trusts_by_certificate() {
    let directory = Directory::new();
    let ca = directory.authority("ca");
    let server = directory.certificate("server", "ca", "DNS:localhost,IP:127.0.0.1");
    let client = directory.certificate("client", "ca", "DNS:client");
    let node = PrivateNode::start_with(&NodeOptions {
        tls: Some(TlsFiles {
            ca: ca.clone(),
            certificate: server.0,
            key: server.1,
            client_certificate_required: true,
        }),
        ..NodeOptions::default()
    })
    .unwrap();
    let with = |tls: TlsOptions| {
        let mut options = ConnectionOptions { tls, ..options(&node.tls_url()) };
        options.retry.at_startup = false;
        within(Connection::open(options))
    };
    let (cert, key) = (Some(client.0), Some(client.1));
    let complete = TlsOptions { ca: Some(ca.clone()), cert: cert.clone(), key };
    let connection = with(complete.clone()).await.unwrap();
    let queues = vec![QueueSpec::classic("q")];
    within(connection.declare(&Topology { queues, ..Topology::default() })).await.unwrap();
    let publisher = Publisher::new(&connection);
    let results = within(publisher.publish_all(numbered("q", 0..100))).await;
    assert!(results.iter().all(Result::is_ok));

    let unknown = with(TlsOptions { ca: None, ..complete.clone() }).await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    let anonymous = with(TlsOptions { ca: Some(ca), ..TlsOptions::default() }).await;
    assert!(anonymous.is_err());
    let unreadable = TlsOptions { cert: Some("/nowhere.pem".into()), ..complete };
    let unreadable = with(unreadable).await.unwrap_err();
    assert!(unreadable.to_string().contains("/nowhere.pem"), "{unreadable}");
}

/// Keys and certificates for one test, made with openssl.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let unique = format!("celeriac-tls-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn authority(&self, name: &str) -> PathBuf {
        let (certificate, key) = self.files(name);
        openssl(
            &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
            &[
                ("-subj", Path::new("/CN=celeriac test authority")),
                ("-keyout", &key),
                ("-out", &certificate),
            ],
        );
        certificate
    }

    fn certificate(&self, name: &str, ca: &str, subject: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.files(name);
        let (ca_certificate, ca_key) = self.files(ca);
        let request = self.0.join(format!("{name}.csr"));
        let extensions = self.0.join(format!("{name}.ext"));
        std::fs::write(&extensions, format!("subjectAltName={subject}\n")).unwrap();
        openssl(
            &["req", "-new", "-newkey", "rsa:2048", "-nodes"],
            &[("-subj", Path::new(&format!("/CN={name}"))), ("-keyout", &key), ("-out", &request)],
        );
        openssl(
            &["x509", "-req", "-days", "2", "-CAcreateserial"],
            &[
                ("-in", &request),
                ("-CA", &ca_certificate),
                ("-CAkey", &ca_key),
                ("-extfile", &extensions),
                ("-out", &certificate),
            ],
        );
        (certificate, key)
    }

    fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left in the directory for temporary files, it would harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn openssl(command: &[&str], options: &[(&str, &Path)]) {
    let mut openssl = Command::new("openssl");
    openssl.args(command);
    for (option, value) in options {
        openssl.arg(option).arg(value);
    }
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
