// The explicit lists of kernel objects. Adding an object adds its files and one row here.
#include "objects/files/file_kind.h"
#include "objects/task_object.h"

namespace stasis {}
