#include "engine.h"

const char *engine_state_word(enum engine_state state)
{
	switch (state) {
	case ENGINE_SYNCED: return "synced";
	case ENGINE_SYNCING: return "syncing";
	case ENGINE_SCANNING: return "scanning";
	case ENGINE_OFFLINE: return "offline";
	case ENGINE_DEGRADED: return "degraded";
	case ENGINE_FENCED: return "fenced";
	}
	return "unknown";
}
