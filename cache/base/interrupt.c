#include "interrupt.h"

#include <signal.h>
#include <stddef.h>

static atomic_bool asked;
static atomic_int last;

static void on_signal(int number)
{
	atomic_store(&last, number);
	atomic_store(&asked, true);
}

void interrupt_catch(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART}, before;

	sigemptyset(&action.sa_mask);
	/* What a shell or nohup(1) had us ignore stays ignored. */
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
}

bool interrupt_asked(void)
{
	return atomic_load(&asked);
}

atomic_bool *interrupt_flag(void)
{
	return &asked;
}

int interrupt_signal(void)
{
	return atomic_load(&last);
}

void interrupt_forget(void)
{
	atomic_store(&asked, false);
}
