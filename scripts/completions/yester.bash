# shellcheck shell=bash
# Completion of yester for bash: installed as share/bash-completion/completions/yester.

_yester_store_options() {
	echo --endpoint --region --profile --addressing --allow-http --ca-file --proxy --storage-class --server-side-encryption
}

_yester_options() { # VERB
	case $1 in
	init) echo --name --passphrase-file --no-encryption --unsafe-single-writer "$(_yester_store_options)" --help ;;
	mount) echo -f -o --foreground --options --help ;;
	umount) echo --timeout --help ;;
	sync) echo --rescan --timeout --help ;;
	status) echo --json --watch --help ;;
	restore) echo --at --to --help ;;
	clone) echo --at --name --passphrase-file --key-file --recovery-key-file "$(_yester_store_options)" --help ;;
	check) echo --read-data --read-data= --passphrase-file --key-file --recovery-key-file "$(_yester_store_options)" --help ;;
	esac
}

# Directories of this user's volumes, one a line.
_yester_volumes() {
	local directory=${YESTER_CONFIG_DIR-}
	if [ -z "$directory" ]; then
		directory=/etc/yester
		[ "$(id -u)" -eq 0 ] || directory=${XDG_CONFIG_HOME:-$HOME/.config}/yester
	fi
	sed -n 's/^directory = //p' "$directory"/*.conf 2>/dev/null
}

_yester_times() {
	echo latest 10m-ago 1h-ago 3h-ago 1d-ago 3d-ago 1w-ago
}

_yester() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
	local verbs="init mount umount status sync restore clone check help --version --help"
	COMPREPLY=()
	# Readline breaks words at = and :.
	[ "$current" != = ] || current=
	if [ "$COMP_CWORD" -eq 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$current")
		return
	fi
	case $previous in
	--passphrase-file | --key-file | --recovery-key-file | --ca-file | --to)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--at)
		mapfile -t COMPREPLY < <(compgen -W "$(_yester_times)" -- "$current")
		return
		;;
	-o | --options)
		mapfile -t COMPREPLY < <(compgen -W "take_over accept_loss adopt exclusive snapdir=visible no_passthrough ro noatime" -- "$current")
		return
		;;
	--addressing)
		mapfile -t COMPREPLY < <(compgen -W "auto path virtual" -- "$current")
		return
		;;
	--server-side-encryption)
		mapfile -t COMPREPLY < <(compgen -W "AES256 aws:kms aws:kms:dsse" -- "$current")
		return
		;;
	--name | --timeout | --endpoint | --region | --profile | --proxy | --storage-class) return ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "init mount umount status sync restore clone check" -- "$current")
		return
		;;
	esac
	if [[ $current = -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_yester_options "$verb")" -- "$current")
		return
	fi
	compopt -o filenames 2>/dev/null
	case $verb in
	restore) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
	init | clone) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
	*)
		local IFS=$'\n'
		mapfile -t COMPREPLY < <(compgen -W "$(_yester_volumes)" -- "$current")
		[ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -d -- "$current")
		;;
	esac
}
complete -F _yester yester
