// What somebody meant who has mistyped a word.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace hobbes {

/// The candidate that is fewest insertions, deletions, substitutions and swaps of neighbours away
/// from `word` (the optimal string alignment distance, Damerau 1964), if that is at most a third of
/// its length and at least one; of equals the first. Empty: none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
/// "did you mean 'NEAREST'?", or `otherwise`.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates,
                         const std::string& otherwise);

}  // namespace hobbes
