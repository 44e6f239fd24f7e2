# bash completion for orthanc-envelope

_orthanc_envelope() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' word options
    COMPREPLY=()
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            keygen | inspect | wrapped-key | encrypt | decrypt)
                command=$word
                break
                ;;
        esac
    done
    # Bash makes three words of ID:FILE; the file's name is completed like all others.
    case $previous in
        --key) return ;;
        --uuid) return ;;
        --format)
            mapfile -t COMPREPLY < <(compgen -W 'A1 A2' -- "$current")
            return
            ;;
    esac
    if [[ $current == -* ]]; then
        case $command in
            encrypt) options='--key --format --uuid --force --skip-existing --quiet --help' ;;
            decrypt) options='--key --unwrapped-key --uuid --force --skip-existing --quiet --help' ;;
            '') options='--help --version' ;;
            *) options='--help' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'keygen inspect wrapped-key encrypt decrypt' -- "$current")
    else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "${current#:}")
    fi
}

complete -F _orthanc_envelope orthanc-envelope
