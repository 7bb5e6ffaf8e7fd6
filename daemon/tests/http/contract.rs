//! `api.yaml` is generated from the routes; the committed file must not differ.

#[test]
fn api_yaml_is_what_the_routes_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api.yaml");
    let said = chiptide_daemon::routes::api_yaml();
    if std::env::var_os("UPDATE_API").is_some() {
        std::fs::write(path, &said).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == said, "api.yaml is stale: run `UPDATE_API=1 cargo test -p chiptide-daemon --test http`");
}
