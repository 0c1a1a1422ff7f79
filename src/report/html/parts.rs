//! Pieces that every page is made of.

use std::fmt::Write;

/// How pages look.
const STYLE: &str = include_str!("style.css");

/// A whole page. Nothing may be loaded or run: the policy says so to the browser too.
pub(in crate::report) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>\n",
        title = escape(title)
    )
}

/// Text that the browser shows as it is.
pub(in crate::report) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The items of a list.
pub(in crate::report) fn items(lines: &[String]) -> String {
    let mut html = String::new();
    for line in lines {
        let _ = write!(html, "<li>{}</li>", escape(line));
    }
    html
}

/// A table of text; `bold` says which rows stand out.
pub(in crate::report) fn table(heads: &[String], rows: &[Vec<String>], bold: impl Fn(usize) -> bool) -> String {
    let escaped = |row: &Vec<String>| row.iter().map(|cell| escape(cell)).collect();
    html_table(heads, &rows.iter().map(escaped).collect::<Vec<_>>(), bold)
}

/// A table whose cells are HTML.
pub(in crate::report) fn html_table(heads: &[String], rows: &[Vec<String>], bold: impl Fn(usize) -> bool) -> String {
    let mut html =
        "<div class=scroll tabindex=0 role=group aria-label=\"table, scrolls sideways\"><table><thead><tr>".to_owned();
    for head in heads {
        let _ = write!(html, "<th>{}</th>", escape(head));
    }
    html.push_str("</tr></thead><tbody>");
    for (index, row) in rows.iter().enumerate() {
        html.push_str(if bold(index) { "<tr class=bold>" } else { "<tr>" });
        for cell in row {
            let _ = write!(html, "<td>{cell}</td>");
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}
