#include "help.h"

#include <stddef.h>
#include <string.h>

#define STORE_HELP                                                                                                     \
	"  --endpoint URL           of the S3 service (default: AWS_ENDPOINT_URL, else that of AWS)\n"                  \
	"  --region NAME            (default: AWS_REGION, else us-east-1)\n"                                            \
	"  --profile NAME           of the AWS files (default: AWS_PROFILE)\n"                                          \
	"  --addressing HOW         how the bucket stands in requests: auto, path, virtual\n"                           \
	"  --allow-http             accept plain http to a machine other than this one\n" \
	"  --ca-file FILE           certificates to trust instead of the system's\n"                                    \
	"  --proxy URL              HTTP proxy\n"                                                                       \
	"  --storage-class CLASS, --server-side-encryption WHICH\n"                                                     \
	"                           what new objects are stored with; WHICH: AES256, aws:kms, aws:kms:dsse\n"

static const struct help {
	const char *verb, *words, *line, *text;
} helps[] = {
	{ "init", "DIR REMOTE [--name NAME] [--passphrase-file FILE | --no-encryption] [--unsafe-single-writer]\n"
	  "            [STORE]",
	  "make a volume: DIR shall be kept in REMOTE",
	  "REMOTE is s3://BUCKET/PREFIX or file:///PATH. Nothing of DIR is changed or read yet: `yester mount DIR` begins.\n"
	  "\n"
	  "  --name NAME              name of the volume on this machine (default: from DIR)\n"
	  "  --passphrase-file FILE   lock the key with the first line of FILE, which stays where it is (mode 0600);\n"
	  "                           default: a random key file is made beside the config\n"
	  "  --no-encryption          store everything readable, with checksums only\n"
	  "  --unsafe-single-writer   accept a store that can't create a key only if it is absent: then nothing keeps two\n"
	  "                           machines from writing over each other\n"
	  "\n"
	  "STORE: how an s3:// remote is reached, kept in the config\n"
	  STORE_HELP
	  "\n"
	  "S3 credentials, and what is not given, are found as the AWS tools find them (AWS_ACCESS_KEY_ID, AWS_PROFILE,\n"
	  "AWS_REGION, AWS_ENDPOINT_URL, ~/.aws).\n" },
	{ "mount", "DIR [MOUNTPOINT] [-f] [-o OPTIONS]", "mount a volume, in place or on MOUNTPOINT",
	  "Returns when the mount answers; never waits for the network.\n"
	  "\n"
	  "  -f                       stay in the foreground, messages on stderr\n"
	  "  -o OPTIONS               separated by commas:\n"
	  "       ro,noatime,nodev,nosuid,noexec...   as in mount(8)\n"
	  "       snapdir=visible     list .snapshots in the root\n"
	  "       no_passthrough      keep the kernel from reading and mapping the files below by itself, where it could\n"
	  "       take_over           continue a volume that another machine wrote last; that one is then fenced\n"
	  "       accept_loss         more than half of the tree has gone, on purpose: record it\n"
	  "       exclusive           mounted on MOUNTPOINT: nobody changes DIR directly, so that more can be cached\n"
	  "       adopt               DIR was moved or made anew on purpose: take it as the volume's directory\n"
	  "\n"
	  "In /etc/fstab:  DIR DIR fuse.yester nofail,x-systemd.automount 0 0\n" },
	{ "umount", "DIR [--timeout 60s]", "upload what is left, then unmount",
	  "Unmounts when everything is in the remote, or when uploads make no progress or the time is over. Then the exit code is 4:\n"
	  "what is left is kept on this machine and goes up after the next mount. Interrupted (Ctrl-C) meanwhile, it stays mounted.\n"
	  "\n"
	  "  --timeout TIME           longest time to go on uploading (default 60s; 0: at once)\n" },
	{ "status", "[DIR] [--json] [--watch]", "what is safe, and what yester is doing",
	  "Without DIR: every volume of this user.\n"
	  "\n"
	  "  --json                   one JSON object for DIR, a list without DIR\n"
	  "  --watch                  again every second, until interrupted\n" },
	{ "sync", "DIR [--rescan] [--timeout 60s]", "make a version now, and wait until it is in the remote",
	  "On an unmounted volume: look for what changed, and upload it. Exit code 4 when the time is over before it is in the\n"
	  "remote, 6 when another machine has taken the volume over.\n"
	  "\n"
	  "  --rescan                 look for what was changed in DIR without the mount; so it is anyway for a volume that is\n"
	  "                           mounted on a MOUNTPOINT without -o exclusive\n"
	  "  --timeout TIME           longest wait (default: as long as it takes; 0: don't wait)\n" },
	{ "restore", "PATH --at TIME [--to DEST]", "bring back a file or directory as it was",
	  "Replaces PATH in one step by what it was; the present state is recorded first, so that this can be undone the same way.\n"
	  "Of the volume itself, each entry is replaced in one step.\n"
	  "\n"
	  "  --at TIME                10m-ago, 3d-ago, 2026-11-20, 2026-11-20T08:14:07 (UTC), a name in .snapshots, latest\n"
	  "  --to DEST                leave PATH as it is and write to DEST, which must not exist (or is a directory to put\n"
	  "                           it into)\n" },
	{ "clone", "REMOTE DIR [--at TIME] [--name NAME] [SECRET] [STORE]", "recover a volume from its remote, onto a new machine",
	  "Fills DIR, which must be absent or empty, from the newest version. Asks for the passphrase or recovery key when it needs\n"
	  "one, on a terminal. Its first mount or sync takes the volume over: the machine that wrote there before is fenced.\n"
	  "\n"
	  "  --at TIME                the tree as it was then (see yester restore --help)\n"
	  "  --name NAME              name of the volume on this machine (default: from DIR)\n"
	  "\n"
	  "SECRET: what opens the volume; a file with mode 0600\n"
	  "  --passphrase-file FILE, --key-file FILE, --recovery-key-file FILE\n"
	  "  YESTER_PASSPHRASE_FILE   the same as --passphrase-file, from the environment\n"
	  "\n"
	  "STORE: how an s3:// remote is reached, kept in the config of the new volume\n"
	  STORE_HELP },
	{ "check", "DIR|REMOTE [--read-data[=PERCENT]] [SECRET] [STORE]", "verify what is in the remote",
	  "Verifies the log, the catalogue, and that every object is there; exit code 5 when something is damaged.\n"
	  "\n"
	  "  --read-data[=PERCENT]    also read that share of the data back (all of it without PERCENT) and verify it\n"
	  "\n"
	  "SECRET: what opens REMOTE; a volume of this machine knows its own\n"
	  "  --passphrase-file FILE, --key-file FILE, --recovery-key-file FILE\n"
	  "\n"
	  "STORE: how REMOTE is reached; a volume of this machine has it in its config\n"
	  STORE_HELP },
};

void help_all(FILE *stream)
{
	fputs("yester gives a folder a memory: every change goes to object storage, encrypted, and any past second is\n"
	      "browsable under .snapshots.\n\nusage:\n", stream);
	for (size_t i = 0; i < sizeof helps / sizeof *helps; i++)
		fprintf(stream, "  yester %-8s %s\n", helps[i].verb, helps[i].line);
	fputs("  yester --version | --help | VERB --help\n\n"
	      "Begin:  yester init DIR REMOTE, then yester mount DIR. See yester(1).\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 wrong passphrase or key, 4 not durable in time, 5 damage found, 6 fenced,\n"
	      "128 + N interrupted by signal N.\n",
	      stream);
}

int help_verb(FILE *stream, const char *verb)
{
	for (size_t i = 0; verb && i < sizeof helps / sizeof *helps; i++) {
		if (strcmp(verb, helps[i].verb) != 0)
			continue;
		fprintf(stream, "usage: yester %s %s\n\n%c%s.\n\n%s", verb, helps[i].words, helps[i].line[0] - 'a' + 'A',
			helps[i].line + 1, helps[i].text);
		return 0;
	}
	return -1;
}
