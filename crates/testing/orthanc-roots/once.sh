# shellcheck shell=sh
# For scripts that make a folder once, whose name is in $folder: ends the script if there is the folder. Otherwise, the script
# makes $new and renames it to $folder, which therefore appears when it is complete. Of several calls at once, one makes
# it and the others wait. What a script leaves behind when it is interrupted is removed.
mkdir -p "$(dirname "${folder:?}")"
exec 9> "$folder.lock"
flock 9
if [ -e "$folder" ]; then
    exit
fi
new=$folder.new
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$new"
