"""What engraft draws from a seed, drawn again: first weights and the order of examples.

The generator is ChaCha with 8 rounds (Bernstein 2008), a 64-bit counter and a 64-bit stream, seeded from an integer by PCG32.
"""

import numpy as np

LOW = 0xFFFFFFFF


def pcg32(state):
    """Eight words of a seed (O'Neill 2014, XSH-RR)."""
    words = []
    for _ in range(8):
        state = (state * 6364136223846793005 + 11634580027462260723) % 2**64
        mixed, turn = (((state >> 18) ^ state) >> 27) & LOW, state >> 59
        words.append((mixed >> turn | mixed << (-turn % 32)) & LOW)
    return words


def rotated(words, bits):
    return words << np.uint32(bits) | words >> np.uint32(32 - bits)


def chacha8(seed, stream, first, blocks):
    """The words of `blocks` blocks from block `first` on."""
    counter = np.arange(first, first + blocks, dtype=np.uint64)
    state = [np.full(blocks, word, np.uint32) for word in (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *pcg32(seed))]
    state += [(counter & np.uint64(LOW)).astype(np.uint32), (counter >> np.uint64(32)).astype(np.uint32)]
    state += [np.full(blocks, word, np.uint32) for word in (stream & LOW, stream >> 32)]
    x = [words.copy() for words in state]
    columns = [(i, 4 + i, 8 + i, 12 + i) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for _ in range(4):
        for a, b, c, d in columns + diagonals:
            for target, other, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[target] += x[other]
                x[turned] = rotated(x[turned] ^ x[target], bits)
    return np.stack([words + start for words, start in zip(x, state)], axis=1).reshape(-1)


class Generator:
    """Its words one after another."""

    def __init__(self, seed, stream=0):
        self.seed, self.stream, self.blocks, self.words = seed, stream, 0, np.empty(0, np.uint32)

    def take(self, count):
        while len(self.words) < count:
            more = max(1024, -(-(count - len(self.words)) // 16))
            self.words = np.concatenate([self.words, chacha8(self.seed, self.stream, self.blocks, more)])
            self.blocks += more
        taken, self.words = self.words[:count], self.words[count:]
        return taken

    def below(self, bound):
        """A number below `bound`: the high half of a product, and one more word where the low half leaves it open."""
        product = int(self.take(1)[0]) * bound
        number, rest = product >> 32, product & LOW
        if rest > 2**32 - bound:
            number += rest + (int(self.take(1)[0]) * bound >> 32) > LOW
        return number

    def uniform(self, shape, bound):
        """Numbers from -bound to bound, in 24 bits."""
        words = (self.take(int(np.prod(shape))) >> np.uint32(9)) | np.uint32(0x3F800000)
        bound = np.float32(bound)
        return ((words.view(np.float32) - np.float32(1)) * (bound + bound) - bound).reshape(shape)


def order(count, seed, epoch):
    """The order of `count` examples in an epoch: Durstenfeld's shuffle from the front, several indices from each word."""
    generator, places = Generator(seed, epoch), list(range(count))
    chunk, left = 0, 1
    for place in range(count):
        choices = place + 1
        if left == 0:
            bound, following = choices, choices + 1
            while bound * following <= LOW:
                bound, following = bound * following, following + 1
            chunk, left = generator.below(bound), following - choices
        left -= 1
        index = chunk if left == 0 else chunk % choices
        chunk //= choices
        places[place], places[index] = places[index], places[place]
    return np.array(places)


def weights(shapes, seed):
    """First weights for `shapes`, pairs of name and shape in the order of the network's nodes: matrices and kernels within the root
    of 1 / fan in, each followed by its bias."""
    generator, drawn, bound = Generator(seed), {}, 1.0
    for name, shape in shapes:
        if len(shape) > 1:
            bound = np.float32(1) / np.sqrt(np.float32(np.prod(shape[1:])))
        drawn[name] = generator.uniform(shape, bound)
    return drawn
