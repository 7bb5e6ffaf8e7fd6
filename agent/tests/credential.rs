//! The agent's own credential: joined for once, kept for itself, renewed.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use chiptide_agent::credential::Credential;
use chiptide_api::Client;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A daemon that lets in whoever has the join token "good", and gives out `token-1`, `token-2` and so on.
async fn daemon() -> (String, Arc<AtomicU32>) {
    let given = Arc::new(AtomicU32::new(0));
    async fn made(given: &AtomicU32) -> Value {
        let number = given.fetch_add(1, Ordering::SeqCst) + 1;
        json!({"token": format!("token-{number}"), "id": format!("id{number}"), "name": "x", "role": "agent",
            "node": "n1", "created_at": "2026-11-24T12:00:00Z"})
    }
    let routes = Router::new()
        .route(
            "/v1/join",
            post(async |State(given): State<Arc<AtomicU32>>, Json(body): Json<Value>| {
                match body["join_token"] == "good" {
                    true => (StatusCode::CREATED, Json(made(&given).await)),
                    false => (
                        StatusCode::UNAUTHORIZED,
                        Json(json!({"type": "/problems/join_refused", "title": "no",
                        "status": 401, "code": "join_refused", "detail": "no"})),
                    ),
                }
            }),
        )
        .route(
            "/v1/nodes/{node}/credential",
            post(async |State(given): State<Arc<AtomicU32>>| (StatusCode::CREATED, Json(made(&given).await))),
        )
        .route(
            "/echo",
            get(async |headers: axum::http::HeaderMap| {
                headers["authorization"].to_str().map(str::to_owned).unwrap_or_default()
            }),
        )
        .with_state(given.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, given)
}

#[tokio::test]
async fn a_join_token_is_spent_once_and_the_credential_outlives_the_agent() {
    let (url, given) = daemon().await;
    let dir = tempfile::tempdir().expect("a directory");
    let client = Client::new(&url, "").expect("a client");
    let credential = Credential::of(dir.path());
    assert!(credential.take_up(&client, "n1", None).await.is_err(), "nothing to come in with");
    assert!(credential.take_up(&client, "n1", Some("bad")).await.is_err(), "refused");
    credential.take_up(&client, "n1", Some("good")).await.expect("let in");
    assert_eq!(client.text("/echo").await.expect("an answer"), "Bearer token-1");
    let mode = std::fs::metadata(dir.path().join("credential")).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let later = Client::new(&url, "").expect("a client");
    Credential::of(dir.path()).take_up(&later, "n1", Some("good")).await.expect("kept");
    assert_eq!(
        (later.text("/echo").await.expect("an answer"), given.load(Ordering::SeqCst)),
        ("Bearer token-1".into(), 1)
    );
    credential.renew(&later, "n1").await.expect("renewed");
    assert_eq!(later.text("/echo").await.expect("an answer"), "Bearer token-2");
    let restarted = Client::new(&url, "").expect("a client");
    Credential::of(dir.path()).take_up(&restarted, "n1", None).await.expect("kept");
    assert_eq!(restarted.text("/echo").await.expect("an answer"), "Bearer token-2");
}
