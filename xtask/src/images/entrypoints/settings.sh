# What entry points share: settings that come from the environment or from the file that NAME_FILE names.

# fail MESSAGE: says why and ends.
fail() {
    echo "entry point: $*" >&2
    exit 1
}

# setting NAME [DEFAULT]: exports NAME with its own value, else the content of the file NAME_FILE, else DEFAULT.
setting() {
    local name=$1 file_name=${1}_FILE
    local value=${!name} file=${!file_name}
    [ -z "$value" ] || [ -z "$file" ] || fail "$name and $file_name exclude each other"
    [ -z "$file" ] || value=$(<"$file")
    export "$name=${value:-$2}"
    unset "$file_name"
}

# as USER COMMAND…: becomes USER, for good.
as() {
    local user=$1
    shift
    exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
}

# own USER FOLDER…: makes the folders and everything in them the user's.
own() {
    local user=$1
    shift
    mkdir -p "$@"
    find "$@" ! -user "$user" -exec chown "$user:$user" {} +
}
