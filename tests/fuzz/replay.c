/* replay: a main for fuzz targets that needs no fuzzing engine.
 *
 *   fuzz_x [-n RUNS] [-s SEED] [FILE|DIRECTORY...]
 *
 * Feeds the target the empty input, each file, and then RUNS (default 0) mutations of them, always the same for one SEED. A crash leaves
 * the input that caused it in the file crash-input of the working directory and says which seed and run made it. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST (1 << 20)
#define INPUTS_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
/* Given by the sanitizers, absent without them: runs before they end the program, for which they raise no signal. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct input {
	uint8_t *data;
	size_t length;
};

static struct input inputs[INPUTS_MAX];
static size_t input_count;
/* What the target is looking at, for the report of a crash. */
static const uint8_t *current;
static size_t current_length;
static unsigned long seed = 1, run_number;
static uint64_t state;

static uint64_t next_random(void)
{
	/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators). */
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static size_t below(size_t limit)
{
	return limit ? (size_t)(next_random() % limit) : 0;
}

/* Only what a signal handler may do. */
static void save_input(void)
{
	char text[96];
	int fd = open("crash-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int length = snprintf(text, sizeof text, "replay: seed %lu, run %lu; the input is in crash-input\n", seed, run_number);

	if (fd < 0 || write(fd, current, current_length) != (ssize_t)current_length)
		length = snprintf(text, sizeof text, "replay: seed %lu, run %lu; crash-input cannot be written\n", seed, run_number);
	if (write(STDERR_FILENO, text, (size_t)length) < 0)
		_exit(2);
}

static void on_signal(int number)
{
	save_input();
	signal(number, SIG_DFL);
	raise(number);
}

static void feed(const uint8_t *data, size_t length)
{
	/* An allocation of exactly this size, so that the sanitizer sees the first byte read beyond it. */
	uint8_t *copy = malloc(length ? length : 1);

	if (!copy)
		abort();
	memcpy(copy, data, length);
	current = copy;
	current_length = length;
	LLVMFuzzerTestOneInput(copy, length);
	free(copy);
	run_number++;
}

static void load_file(const char *path)
{
	struct input *input = &inputs[input_count];
	FILE *file = fopen(path, "rbe");

	if (!file || input_count == INPUTS_MAX || !(input->data = malloc(LARGEST))) {
		fprintf(stderr, "replay: cannot read %s\n", path);
		exit(2);
	}
	input->length = fread(input->data, 1, LARGEST, file);
	fclose(file);
	input_count++;
}

static void load(const char *path)
{
	struct dirent **entries;
	struct stat st;
	int count;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
		load_file(path);
		return;
	}
	count = scandir(path, &entries, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		char child[4096];

		snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			load_file(child);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

static void mutate_once(uint8_t *data, size_t *length)
{
	static const uint8_t edges[] = { 0, 1, 0x7f, 0x80, 0xff, '\n', '=', '<', '&', '/' };
	const struct input *other = &inputs[below(input_count)];
	size_t at = below(*length + 1), count = 1 + below(16);

	switch (below(8)) {
	case 0: /* flip a bit */
		if (at < *length)
			data[at] ^= (uint8_t)(1u << below(8));
		break;
	case 1:
		if (at < *length)
			data[at] = edges[below(sizeof edges)];
		break;
	case 2:
		if (at < *length)
			data[at] = (uint8_t)next_random();
		break;
	case 3: /* remove */
		if (count > *length - at)
			count = *length - at;
		memmove(data + at, data + at + count, *length - at - count);
		*length -= count;
		break;
	case 4: /* repeat a part */
		if (count > *length - at)
			count = *length - at;
		if (*length + count > LARGEST)
			break;
		memmove(data + at + count, data + at, *length - at);
		*length += count;
		break;
	case 5: /* cut off */
		*length = at;
		break;
	case 6: /* insert: all that an empty input can grow by */
		if (*length + count > LARGEST)
			break;
		memmove(data + at + count, data + at, *length - at);
		*length += count;
		while (count > 0)
			data[at + --count] = (uint8_t)next_random();
		break;
	default: /* the rest from another input */
		if (!other->data || at > other->length)
			break;
		memcpy(data + at, other->data + at, other->length - at);
		*length = other->length;
	}
}

static void run_mutations(unsigned long runs)
{
	uint8_t *data = malloc(LARGEST);

	if (!data)
		abort();
	state = seed;
	while (runs-- > 0) {
		const struct input *from = &inputs[below(input_count)];
		size_t length = from->length;

		if (length > 0)
			memcpy(data, from->data, length);
		for (size_t times = 1 + below(8); times > 0; times--)
			mutate_once(data, &length);
		feed(data, length);
	}
	free(data);
}

int main(int argc, char **argv)
{
	static const int fatal[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	unsigned long runs = 0;
	int option;

	while ((option = getopt(argc, argv, "n:s:")) != -1) {
		if (option == 'n')
			runs = strtoul(optarg, NULL, 10);
		else if (option == 's')
			seed = strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	for (int i = optind; i < argc; i++)
		load(argv[i]);
	/* The sanitizers report all but abort() themselves. */
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_input);
	for (size_t i = 0; i < (__sanitizer_set_death_callback ? 1 : sizeof fatal / sizeof *fatal); i++)
		signal(fatal[i], on_signal);
	feed((const uint8_t *)"", 0);
	for (size_t i = 0; i < input_count; i++)
		feed(inputs[i].data, inputs[i].length);
	run_mutations(runs);
	printf("%zu inputs, %lu runs, seed %lu\n", input_count, run_number, seed);
	for (size_t i = 0; i < input_count; i++)
		free(inputs[i].data);
	return 0;
}
