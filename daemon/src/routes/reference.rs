//! The contract as a page for people: one file without script, made from the document that programs read.

use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3{margin:2rem 0 .3rem}code{font:13px ui-monospace,monospace}
table{border-collapse:collapse;margin:.5rem 0;width:100%}td,th{border-top:1px solid #ddd;padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top}
.verb{display:inline-block;min-width:4.5rem;font-weight:700}nav a{margin-right:1rem}a{color:#0b5cad}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}h2,td,th{border-color:#444}a{color:#7db7ff}}";
const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

/// The page of a document.
pub(super) fn page(openapi: &Value) -> String {
    let mut page = String::new();
    let title = text(&openapi["info"]["title"]);
    put(
        &mut page,
        format_args!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{title} API</title><style>{STYLE}</style>"
        ),
    );
    let (version, about) = (text(&openapi["info"]["version"]), text(&openapi["info"]["description"]));
    put(&mut page, format_args!("<h1>{title} API {version}</h1><p>{about}</p>"));
    put(
        &mut page,
        format_args!("<p>For programs: <a href=/openapi.json>JSON</a>, <a href=/openapi.yaml>YAML</a>.</p><nav>"),
    );
    let tags = openapi["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    for tag in tags {
        put(&mut page, format_args!("<a href=\"#{0}\">{0}</a>", text(&tag["name"])));
    }
    put(&mut page, format_args!("<a href=\"#schemas\">schemas</a></nav>"));
    for tag in tags {
        put(
            &mut page,
            format_args!("<h2 id=\"{0}\">{0}</h2><p>{1}</p>", text(&tag["name"]), text(&tag["description"])),
        );
        for (path, method, operation) in operations(openapi) {
            if operation["tags"][0] == tag["name"] {
                put_operation(&mut page, path, method, operation);
            }
        }
    }
    put(&mut page, format_args!("<h2 id=schemas>schemas</h2>"));
    for (name, schema) in openapi["components"]["schemas"].as_object().into_iter().flatten() {
        put_schema(&mut page, name, schema);
    }
    page
}

fn operations(openapi: &Value) -> impl Iterator<Item = (&str, &'static str, &Value)> {
    let paths = openapi["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        METHODS.into_iter().filter_map(move |method| Some((path.as_str(), method, item.get(method)?)))
    })
}

fn put_operation(page: &mut String, path: &str, method: &str, operation: &Value) {
    let id = text(&operation["operationId"]);
    let (verb, path) = (method.to_uppercase(), escaped(path));
    put(page, format_args!("<h3 id=\"{id}\"><span class=verb>{verb}</span><code>{path}</code></h3>"));
    put(page, format_args!("<p>{} {}</p>", text(&operation["summary"]), text(&operation["description"])));
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        put(page, format_args!("<table><tr><th>parameter<th>in<th>type<th>"));
        for parameter in parameters {
            let needed = if parameter["required"] == true { " (required)" } else { "" };
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let (kind, about) = (kind(&parameter["schema"]), text(&parameter["description"]));
            put(page, format_args!("<tr><td><code>{name}</code>{needed}<td>{place}<td>{kind}<td>{about}"));
        }
        put(page, format_args!("</table>"));
    }
    for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        put(page, format_args!("<p>Body (<code>{}</code>): {}</p>", escaped(media), kind(&content["schema"])));
    }
    put(page, format_args!("<table><tr><th>answer<th>body<th>"));
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let bodies = response["content"].as_object().into_iter().flatten();
        let bodies: Vec<String> = bodies
            .map(|(media, content)| format!("{} <small>{}</small>", kind(&content["schema"]), escaped(media)))
            .collect();
        put(
            page,
            format_args!(
                "<tr><td>{}<td>{}<td>{}",
                escaped(status),
                bodies.join("<br>"),
                text(&response["description"])
            ),
        );
    }
    put(page, format_args!("</table>"));
}

fn put_schema(page: &mut String, name: &str, schema: &Value) {
    let name = escaped(name);
    put(page, format_args!("<h3 id=\"schema-{name}\"><code>{name}</code></h3><p>{}</p>", text(&schema["description"])));
    let variants = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|of| schema[of].as_array()).flatten();
    for variant in variants {
        put(page, format_args!("<p>{} {}</p>", kind(variant), text(&variant["description"])));
        put_fields(page, variant);
    }
    put_fields(page, schema);
}

fn put_fields(page: &mut String, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    put(page, format_args!("<table>"));
    for (field, of) in fields {
        let needed = if required.iter().any(|name| name == field) { "" } else { " (optional)" };
        put(
            page,
            format_args!(
                "<tr><td><code>{}</code>{needed}<td>{}<td>{}",
                escaped(field),
                kind(of),
                text(&of["description"])
            ),
        );
    }
    put(page, format_args!("</table>"));
}

/// The type of a schema, in a word, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for of in ["oneOf", "anyOf", "allOf"] {
        if let Some(variants) = schema[of].as_array() {
            return variants.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("<code>{}</code>", escaped(&word.to_string())))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let word = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        other => other.as_str().unwrap_or("any").to_owned(),
    };
    match (word.as_str(), schema["format"].as_str()) {
        ("array", _) => format!("list of {}", kind(&schema["items"])),
        (_, Some(format)) => format!("{word} ({})", escaped(format)),
        _ => word,
    }
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(page: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = page.write_fmt(what);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_every_operation_and_every_link_leads_somewhere() {
        let openapi = serde_json::to_value(super::super::routes().1).expect("JSON");
        let page = super::page(&openapi);
        for (path, method, operation) in super::operations(&openapi) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(
                page.contains(&format!("<h3 id=\"{id}\">")),
                "{method} {path} is not on the page: is its tag listed?"
            );
        }
        for link in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            let id = format!("id=\"{link}\"");
            assert!(page.contains(&id) || page.contains(&format!("id={link}>")), "nothing is at #{link}");
        }
    }
}
