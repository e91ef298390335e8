// The C interface as C sees it. Nothing runs.

#include "names.h"
