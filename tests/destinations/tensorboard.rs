//! `engraft push … --to tensorboard:`; what TensorBoard reads of it is checked in `check`.

use crate::made::{engraft, fused};

#[tokio::test]
async fn each_job_has_a_run_of_its_own() {
    let folder = fused().await;
    for _ in 0..2 {
        let ran = engraft(folder.path(), &[], &["push", "fused", "--to", "tensorboard:runs"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.said);
        assert!(ran.said.contains("tensorboard --logdir runs"), "{}", ran.said);
        let path = folder.path().join(ran.printed.trim());
        let bytes = std::fs::read(&path).expect("a file");
        assert!(bytes.windows(13).any(|window| window == b"brain.Event:2"));
        for curve in ["train/loss", "validation/accuracy", "fused/test/accuracy"] {
            assert!(bytes.windows(curve.len()).any(|window| window == curve.as_bytes()), "{curve}");
        }
    }
    let runs = std::fs::read_dir(folder.path().join("runs")).expect("a folder");
    let runs: Vec<_> = runs.map(|run| run.expect("a run").path()).collect();
    assert_eq!(runs.len(), 1);
    assert_eq!(std::fs::read_dir(&runs[0]).expect("a folder").count(), 1);
}
