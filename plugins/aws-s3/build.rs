//! Linker options of the shared library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // `POST /tools/reset` closes and opens the library in one process. Threads of Orthanc that were inside keep
        // thread-local values of it (of aws-lc, for one) whose destructors run when the thread ends: the code must
        // still be there then.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    }
}
