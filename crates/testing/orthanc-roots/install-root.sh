#!/bin/sh
# Unpacks packages of a Debian release and all that they depend on into a folder, where `FOLDER/Orthanc` runs the
# release's Orthanc: install-root.sh RELEASE FOLDER PACKAGE…
#
# Nothing is installed, mounted or run as root: the programs use the release's own loader and libraries by path.
set -eu
release=$1
folder=$2
shift 2

# shellcheck source=crates/testing/orthanc-roots/once.sh
. "$(dirname "$0")/once.sh"
mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial"

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)}
if [ -z "$mirror" ]; then
    echo "apt-get knows no mirror of Debian: run apt-get update, or set DEBIAN_MIRROR to the address of one" >&2
    exit 1
fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror $release main" > "$new/apt/sources"
: > "$new/apt/status"
# The machine's own configuration stays in force, since it may name a proxy. A mirror that is kept at an old state is
# good enough, so the date until which its index is valid is not checked; its signature is.
cat > "$new/apt/configuration" <<CONFIGURATION
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::Cache "$new/apt";
Dir::Etc::SourceList "$new/apt/sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$new/apt";
Dir::State::Status "$new/apt/status";
CONFIGURATION
export APT_CONFIG="$new/apt/configuration"
apt-get --quiet=2 --error-on=any update
apt-get --quiet=2 --yes --download-only install "$@"
for package in "$new"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$new"
done
rm -r "$new/apt"

# Orthanc looks for the dictionary where the release has it, which is elsewhere on this machine.
cat > "$new/Orthanc" <<'LAUNCHER'
#!/bin/sh
root=${0%/*}
DCMDICTPATH=$root/usr/share/dcmtk/dicom.dic
export DCMDICTPATH
set -- "$root/usr/sbin/Orthanc" "$@"
set -- --library-path "$(echo "$root"/usr/lib/*-linux-gnu):$root/usr/lib" "$@"
exec "$(echo "$root"/usr/lib/*-linux-gnu/ld-linux-*.so.*)" "$@"
LAUNCHER
chmod +x "$new/Orthanc"
"$new/Orthanc" --version | sed -n '1s/.* //p' > "$new/version"
if ! [ -s "$new/version" ]; then
    echo "Orthanc of Debian $release does not run" >&2
    exit 1
fi
mv "$new" "$folder"
