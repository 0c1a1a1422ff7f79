//! Datasets over HTTP: uploaded, read through in a child process, ready or invalid.

use crate::common::app::{self, TestApp};
use crate::common::samples;
use engraft::config::{ByteSize, Seconds};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// A safetensors file with `x` of 6 images of 1 x 2 x 2 and `y` of 3 classes.
fn dataset() -> Vec<u8> {
    let header = r#"{"x":{"dtype":"U8","shape":[6,1,2,2],"data_offsets":[0,24]},"y":{"dtype":"U8","shape":[6],"data_offsets":[24,30]}}"#;
    let header = format!("{header:<120}");
    let pixels: Vec<u8> = (0..24).map(|index| index * 10).collect();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &pixels, &[0, 1, 2, 0, 1, 2]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_becomes_ready_with_its_facts() {
    let app = TestApp::start().await;
    let put = app.put("/v1/datasets/tiny.safetensors", dataset()).send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(put.json::<Value>().await.expect("JSON")["state"], "validating");
    let read = app
        .get("/v1/datasets/tiny.safetensors?preview=true")
        .header("prefer", "wait=60")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (read.headers()["preference-applied"].as_bytes(), read.headers().get("retry-after")),
        (&b"wait"[..], None)
    );
    let view: Value = read.json().await.expect("JSON");
    assert_eq!(view["state"], "ready", "{view}");
    assert_eq!(view["facts"]["example_shape"], json!([1, 2, 2]));
    assert_eq!(view["facts"]["splits"]["train"], json!({"examples": 6, "per_class": [2, 2, 2]}));
    let mean = view["facts"]["mean"][0].as_f64().expect("a mean");
    assert!((mean - 115.0 / 255.0).abs() < 1e-9, "{mean}");
    let preview = view["facts"]["preview"].as_array().expect("examples");
    assert_eq!((preview.len(), &preview[4]["label"]), (6, &json!(1)));
    assert!(preview[0]["image"].as_str().expect("a picture").starts_with("data:image/png;base64,"), "{view}");
    let plain = app.get("/v1/datasets/tiny.safetensors").send().await.expect("an answer");
    let plain: Value = plain.json().await.expect("JSON");
    assert_eq!((&plain["facts"]["preview"][4]["label"], plain["facts"]["preview"][4].get("image")), (&json!(1), None));
    let ready: Value = app.get("/v1/datasets?state=ready").send().await.expect("an answer").json().await.expect("JSON");
    let invalid: Value =
        app.get("/v1/datasets?state=invalid").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((ready["data"].as_array().map(Vec::len), invalid["data"].as_array().map(Vec::len)), (Some(1), Some(0)));
    assert_eq!(ready["data"][0]["facts"].get("preview"), None, "lists stay short");
    assert_eq!((&view["facts"]["byte_elements"], &view["facts"]["notes"]), (&json!(true), &json!([])));
    let delete = app.request(Method::DELETE, "/v1/datasets/tiny.safetensors").send().await.expect("an answer");
    assert_eq!(delete.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn class_folders_tell_what_was_passed_over() {
    let app = TestApp::start().await;
    let mut picture = std::io::Cursor::new(Vec::new());
    let format = image::ImageFormat::Png;
    image::write_buffer_with_format(&mut picture, &[9; 4], 2, 2, image::ColorType::L8, format).expect("encodes");
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["a/1.png", "a/2.png", "a/notes.txt", "b/.hidden", "b/.DS_Store"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(picture.get_ref().len() as u64);
        tar.append_data(&mut header, name, picture.get_ref().as_slice()).expect("appends");
    }
    app.put("/v1/datasets/folders", tar.into_inner().expect("finishes")).send().await.expect("an answer");
    let view = app.dataset("folders").await;
    let skipped = json!({"hidden": 1, "not an image": 1, "of the operating system": 1});
    assert_eq!((&view["facts"]["skipped"], &view["facts"]["class_names"]), (&skipped, &json!(["a", "b"])), "{view}");
    assert!(view["facts"]["notes"][0].as_str().expect("a note").contains("the label 0 (`a`)"), "{view}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_dataset_becomes_invalid_with_the_reason() {
    let app = TestApp::start().await;
    app.put("/v1/datasets/text", "hello".as_bytes().to_vec()).send().await.expect("an answer");
    let view = app.dataset("text").await;
    assert_eq!((&view["state"], &view["error"]["code"]), (&json!("invalid"), &json!("dataset_invalid")));
    assert!(view["error"]["detail"].as_str().expect("text").contains("npz"), "{view}");
    let empty = app.put("/v1/datasets/empty", Vec::new()).send().await.expect("an answer");
    assert_eq!(app::problem(empty).await.1, "dataset_invalid");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_that_was_being_read_is_read_after_the_next_start() {
    let app = TestApp::builder().settings(|settings| settings.program = Some("/nonexistent".into())).start().await;
    app.put("/v1/datasets/tiny", dataset()).send().await.expect("an answer");
    let waiting: Value = app.get("/v1/datasets/tiny").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(waiting["state"], "validating", "the dataset is not to blame for a missing program");
    let folder = app.stop().await;
    let app = TestApp::builder().folder(folder).start().await;
    assert_eq!(app.dataset("tiny").await["state"], "ready");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_whose_reader_somebody_kills_is_read_again() {
    let scripts = tempfile::tempdir().expect("a folder");
    // As the system does for want of memory, or an operator; the second time it is left alone.
    let real = env!("CARGO_BIN_EXE_engraft");
    let once =
        format!("[ -e {0} ] && exec {real} \"$@\"\ntouch {0}\nkill -9 $$", scripts.path().join("seen").display());
    let program = samples::script(scripts.path(), &once);
    let app = TestApp::builder().settings(|settings| settings.program = Some(program)).start().await;
    app.put("/v1/datasets/tiny", dataset()).send().await.expect("an answer");
    let view = app.dataset("tiny").await;
    assert_eq!(view["state"], "ready", "{view}");
    assert!(scripts.path().join("seen").exists());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_breaks_its_limits_makes_the_dataset_invalid_and_the_server_lives() {
    let scripts = tempfile::tempdir().expect("a folder");
    for (text, reason) in [("kill -ABRT $$", "failed"), ("sleep 60", "more than 0.5 s")] {
        let program = samples::script(scripts.path(), text);
        let app = TestApp::builder()
            .settings(|settings| {
                settings.program = Some(program);
                settings.validation.validation_timeout = Seconds(Duration::from_millis(500));
                settings.validation.validation_memory = ByteSize(64 << 20);
            })
            .start()
            .await;
        app.put("/v1/datasets/tiny", dataset()).send().await.expect("an answer");
        let view = app.dataset("tiny").await;
        assert_eq!(view["state"], "invalid");
        assert!(view["error"]["detail"].as_str().expect("text").contains(reason), "{view}");
        assert_eq!(app.get("/healthz").send().await.expect("an answer").status(), StatusCode::OK);
        app.stop().await;
    }
}
