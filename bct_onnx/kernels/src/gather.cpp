#include "weights.h"

namespace bct {
void add_gathers(std::vector<std::unique_ptr<Operator>>&) {}
}  // namespace bct
