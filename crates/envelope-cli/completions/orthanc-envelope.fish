# fish completion for orthanc-envelope

function __orthanc_envelope_keys
    # ID:FILE
    set -l token (commandline -ct)
    if string match -qr '^[0-9]+:' -- $token
        set -l id (string split -m 1 : -- $token)[1]
        for file in (__fish_complete_path (string replace -r '^[0-9]+:' '' -- $token))
            echo $id:$file
        end
    end
end

set -l commands keygen inspect wrapped-key encrypt decrypt
set -l without "not __fish_seen_subcommand_from $commands"
set -l writes '__fish_seen_subcommand_from encrypt decrypt'

complete -c orthanc-envelope -n "$without" -f
complete -c orthanc-envelope -n "$without" -a keygen -d 'Write a new master key'
complete -c orthanc-envelope -n "$without" -a inspect -d 'Print format, key id and sizes'
complete -c orthanc-envelope -n "$without" -a wrapped-key -d 'Print the key that a key service has wrapped'
complete -c orthanc-envelope -n "$without" -a encrypt -d 'Encrypt files'
complete -c orthanc-envelope -n "$without" -a decrypt -d 'Verify and decrypt files'
complete -c orthanc-envelope -n "$writes" -l key -x -a '(__orthanc_envelope_keys)' -d 'Master key, ID:FILE'
complete -c orthanc-envelope -n '__fish_seen_subcommand_from decrypt' -l unwrapped-key -r -d 'Unwrapped file key'
complete -c orthanc-envelope -n '__fish_seen_subcommand_from encrypt' -l format -x -a 'A1 A2' -d 'Format of the envelopes'
complete -c orthanc-envelope -n "$writes" -l uuid -x -d "The attachment's UUID"
complete -c orthanc-envelope -n "$writes" -l force -d 'Replace files that exist'
complete -c orthanc-envelope -n "$writes" -l skip-existing -d 'Leave out files whose output exists'
complete -c orthanc-envelope -n "$writes" -l quiet -d 'Print only errors'
complete -c orthanc-envelope -s h -l help -d 'Print a short help text'
complete -c orthanc-envelope -s V -l version -d 'Print the version'
