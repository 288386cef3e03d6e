//! A tiny HTTP server whose answers a test writes: for what a real registry does not do on demand.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::build::{Blob, digest};

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

#[derive(Default, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Hangs up after this many bytes of the body.
    pub cut_after: Option<usize>,
}

pub struct Server {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply { status: 200, body: body.into(), ..Reply::default() }
    }

    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, stop, answer) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let (log, stopped) = (requests.clone(), stop.clone());
        let accepting = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(connection, &log, &*answer));
            }
        });
        Server { address, requests, stop, accepting: Some(accepting) }
    }

    /// What was asked so far, probes for TLS and for the version excepted.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.path != "/v2/").cloned().collect()
    }

    pub fn requests_for(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path.contains(part)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address: SocketAddr = self.address.parse().unwrap();
        // Wakes the accepting thread.
        let _connected_or_gone = TcpStream::connect(address);
        if let Some(accepting) = self.accepting.take() {
            let _its_panic_was_printed = accepting.join();
        }
    }
}

fn serve(connection: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let Ok(write) = connection.try_clone() else { return };
    let mut first = [0u8; 1];
    // TLS: hang up.
    if !matches!(connection.peek(&mut first), Ok(1) if first[0] != 0x16) {
        return;
    }
    let Some(request) = read(&mut BufReader::new(connection)) else { return };
    log.lock().unwrap().push(request.clone());
    // The client may have gone away: then nobody wants the answer.
    let _sent_or_not = send(write, answer(&request));
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text: &String| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0u8; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn send(mut to: TcpStream, reply: Reply) -> std::io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    to.write_all(format!("{head}\r\n").as_bytes())?;
    to.write_all(&reply.body[..reply.cut_after.unwrap_or(reply.body.len())])?;
    to.flush()?;
    to.shutdown(std::net::Shutdown::Write)
}

/// The content of a registry with one image of one layer: answers to the paths below `/v2/`.
#[derive(Clone)]
pub struct Content {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

impl Content {
    pub fn new(blob: Blob) -> Content {
        let config =
            json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": [blob.diff_id] } }).to_string();
        let descriptor = |bytes: &[u8], kind: &str| -> Value {
            json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config.as_bytes(), "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(&blob.bytes, blob.kind)],
        });
        Content { manifest: manifest.to_string().into(), config: config.into(), layer: blob.bytes }
    }

    pub fn layer_digest(&self) -> String {
        digest(&self.layer)
    }

    /// The answer of a registry without any quirk.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap();
        if path == "/v2/" {
            Reply::ok("{}")
        } else if path.contains("/manifests/") {
            Reply::ok(self.manifest.clone()).header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        } else if path.ends_with(&digest(&self.config)) {
            Reply::ok(self.config.clone())
        } else if path.ends_with(&self.layer_digest()) {
            Reply::ok(self.layer.clone())
        } else {
            Reply::status(404)
        }
    }
}
