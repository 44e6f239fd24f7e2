#!/usr/bin/env bash
# Fails if a plugin's library or a program cannot be loaded on old systems, is not stripped, or, for a library, does not
# export what Orthanc calls. Prints what it requires.
#
#     check-binary.sh FILE library|program
set -euo pipefail
export LC_ALL=C

kind=$2

fail() {
    echo "the $kind $*" >&2
    exit 1
}

# The functions that Orthanc calls.
entry_points='OrthancPluginFinalize
OrthancPluginGetName
OrthancPluginGetVersion
OrthancPluginInitialize'

# The newest glibc that may be required: that of CentOS 7 (2012).
newest_glibc=2.17

glibc=
if head --bytes=4 "$1" | grep --quiet ELF; then
    # Every glibc system has these. The dynamic linker's name depends on the processor.
    common='libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libutil.so.1
        ld-linux-x86-64.so.2 ld-linux-aarch64.so.1'
    needed=$(readelf --dynamic "$1" | sed --quiet 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    # A program exports nothing that matters. Two plugins in one process must not find each other's functions.
    exports=$(readelf --wide --dyn-syms "$1" | awk '$5 ~ /GLOBAL|WEAK/ && $7 != "UND" { print $8 }' | sort)
    [ "$kind" = program ] || [ "$exports" = "$entry_points" ] || fail "must export Orthanc's four functions only, got:" "$exports"
    sections=$(readelf --wide --sections "$1")
    glibc=$(readelf --version-info "$1" | sed --quiet 's/.*Name: GLIBC_\([^ ]*\).*/\1/p' | sort --version-sort | tail --lines=1)
    [ -n "$glibc" ] || fail "names no version of glibc"
    newest=$(printf '%s\n' "$glibc" "$newest_glibc" | sort --version-sort | tail --lines=1)
    [ "$newest" = "$newest_glibc" ] || fail "requires glibc $glibc; it must run with $newest_glibc"
else
    # Every Windows since 8.1 has these. A compiler's libraries are not among them: a DLL must work alone.
    common='advapi32.dll api-ms-win-core-synch-l1-2-0.dll bcrypt.dll bcryptprimitives.dll crypt32.dll kernel32.dll
        msvcrt.dll ntdll.dll userenv.dll ws2_32.dll'
    headers=$(objdump --private-headers "$1")
    needed=$(sed --quiet 's/.*DLL Name: //p' <<< "$headers" | tr '[:upper:]' '[:lower:]')
    exports=$(sed --quiet '/^\[Ordinal\/Name Pointer\] Table/,/^$/ s/.* //p' <<< "$headers" | sort)
    missing=$(comm -23 <(echo "$entry_points") <(echo "$exports"))
    [ "$kind" = program ] || [ -z "$missing" ] || fail "does not export" "$missing"
    sections=$(objdump --section-headers "$1")
fi

if grep --quiet --extended-regexp '\.symtab|\.debug_info' <<< "$sections"; then
    fail "is not stripped"
fi
for library in $needed; do
    grep --quiet --word-regexp --fixed-strings -- "$library" <<< "$common" ||
        fail "needs $library, which not every system has"
done
echo "${glibc:+glibc $glibc}"
