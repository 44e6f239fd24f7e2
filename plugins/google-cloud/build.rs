//! Linker options of the shared library.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    plugin_build::link()
}
