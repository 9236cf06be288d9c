// The functions that a model's file holds.
#pragma once

#include <set>
#include <string>

namespace bct {

// Names of the domain's functions in an ONNX file; none where there is no such file. Of the file nothing else is read.
std::set<std::string> functions_in_file(const std::string& path, const std::string& domain);

}  // namespace bct
