/* interrupt: Ctrl-C, for a verb that has something to tidy up. The first SIGINT, SIGTERM or SIGHUP is only noted; a second one ends the process. Without interrupt_catch
 * nothing is noted, and signals do what they always do: a daemon takes its own. Async-signal-safe inside; any thread may ask. */
#ifndef YESTER_INTERRUPT_H
#define YESTER_INTERRUPT_H

#include <stdatomic.h>
#include <stdbool.h>

void interrupt_catch(void);
/* True from the signal on. Stores give up with ERR_ABANDONED then, also in the middle of a request. */
bool interrupt_asked(void);
/* The same, to be looked at by others; never freed. */
atomic_bool *interrupt_flag(void);
/* Which signal came last; 0: none so far. Stays after interrupt_forget. */
int interrupt_signal(void);
/* Whoever tidies up says so, and can use stores again. */
void interrupt_forget(void);

#endif
