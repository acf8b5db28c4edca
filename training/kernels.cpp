// What PyTorch is slow at when MobileNetV3 is trained on a processor in bfloat16: batch norm with its
// activation, depthwise convolutions, and squeeze-and-excitation, forwards and backwards.
//
// Every tensor lies in memory as N×H×W×C ("channels last"), bfloat16; statistics, weights and their
// gradients are float32. One thread: whoever has more processors trains with several processes, or
// lets the others augment. Called through ctypes (training/kernels.py), so nothing here knows PyTorch.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef uint16_t bf16;
enum Activation { NONE = 0, PRELU = 1, HARD_SWISH = 2 };

// ---------------------------------------------------------------- 16 numbers at a time
static inline __m512 widen(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
// Moving 16 whole is faster than by a mask, and nearly always what is wanted.
static inline __m512 load(const bf16 *p, __mmask16 m) {
  return widen(m == 0xffff ? _mm256_loadu_si256((const __m256i *)p) : _mm256_maskz_loadu_epi16(m, p));
}
static inline void store(bf16 *p, __m512 v, __mmask16 m) {
  __m256i narrow = (__m256i)_mm512_cvtneps_pbh(v);
  if (m == 0xffff)
    _mm256_storeu_si256((__m256i *)p, narrow);
  else
    _mm256_mask_storeu_epi16(p, m, narrow);
}
static inline __mmask16 lanes(int64_t at, int64_t end) {  // those of [at, at+16) before the end
  return end - at >= 16 ? 0xffff : (__mmask16)((1u << (end - at)) - 1);
}
static inline int64_t whole(int64_t n) { return (n + 15) / 16 * 16; }

struct Floats {  // aligned and zero
  float *p;
  explicit Floats(int64_t n) {
    p = (float *)std::aligned_alloc(64, whole(n) * 4);
    std::memset(p, 0, whole(n) * 4);
  }
  ~Floats() { std::free(p); }
};

// ---------------------------------------------------------------- batch norm and activation, M×C
// Rows shorter than a vector or two are taken several at a time, as one row with repeated channels.
static int64_t rows_together(int64_t M, int64_t C) {
  int64_t g = 1;
  while (g < 8 && C * g % 16 && M % (g * 2) == 0) g *= 2;
  while (C * g < 64 && M % (g * 2) == 0) g *= 2;
  return C * g % 16 == 0 ? g : 1;
}
static std::vector<float> repeat(const float *p, int64_t C, int64_t W) {
  std::vector<float> r(whole(W), 0.f);
  for (int64_t i = 0; i < W; i++) r[i] = p[i % C];
  return r;
}
static const int64_t BLOCK = 256;  // rows summed in float32 before they are added up in double

template <int A> static inline __m512 activate(__m512 z, __m512 slope) {
  if (A == NONE) return z;
  if (A == PRELU) {
    __mmask16 negative = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mul_ps(z, negative, z, slope);
  }
  __m512 gate = _mm512_add_ps(z, _mm512_set1_ps(3.f));
  gate = _mm512_min_ps(_mm512_max_ps(gate, _mm512_setzero_ps()), _mm512_set1_ps(6.f));
  return _mm512_mul_ps(_mm512_mul_ps(z, gate), _mm512_set1_ps(1.f / 6));
}
template <int A> static inline __m512 derivative(__m512 z, __m512 slope) {
  const __m512 one = _mm512_set1_ps(1.f);
  if (A == NONE) return one;
  if (A == PRELU) {
    __mmask16 negative = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(one, negative, slope);
  }
  __m512 d = _mm512_fmadd_ps(z, _mm512_set1_ps(1.f / 3), _mm512_set1_ps(.5f));
  __mmask16 low = _mm512_cmp_ps_mask(z, _mm512_set1_ps(-3.f), _CMP_LE_OQ);
  __mmask16 high = _mm512_cmp_ps_mask(z, _mm512_set1_ps(3.f), _CMP_GE_OQ);
  d = _mm512_mask_mov_ps(d, low, _mm512_setzero_ps());
  return _mm512_mask_mov_ps(d, high, one);
}

// Calls sum(row, column, lanes, three sums) for every 16 columns of every row; adds up by channel.
template <class F> static void column_sums(int64_t M, int64_t C, double *sums, F add) {
  int64_t g = rows_together(M, C), W = C * g, R = M / g;
  std::vector<double> wide(3 * W, 0);
  for (int64_t r0 = 0; r0 < R; r0 += BLOCK)
    for (int64_t c = 0, r1 = std::min(R, r0 + BLOCK); c < W; c += 16) {
      __mmask16 m = lanes(c, W);
      __m512 s[3] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int64_t r = r0; r < r1; r++) add(r * W, c, m, s);
      float t[48];
      for (int k = 0; k < 3; k++) _mm512_storeu_ps(t + 16 * k, s[k]);
      for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < 16 && c + i < W; i++) wide[k * W + c + i] += t[16 * k + i];
    }
  std::fill(sums, sums + 3 * C, 0.0);
  for (int k = 0; k < 3; k++)
    for (int64_t i = 0; i < W; i++) sums[k * C + i % C] += wide[k * W + i];
}

template <int A>
static void norm_forward(const bf16 *x, bf16 *y, int64_t M, int64_t C, const float *scale,
                         const float *shift, const float *slope) {
  int64_t W = C * rows_together(M, C), R = M * C / W;
  auto a = repeat(scale, C, W), b = repeat(shift, C, W), s = repeat(slope, C, W);
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = 0; c < W; c += 16) {
      __mmask16 m = lanes(c, W);
      __m512 z = _mm512_fmadd_ps(load(x + r * W + c, m), _mm512_loadu_ps(&a[c]), _mm512_loadu_ps(&b[c]));
      store(y + r * W + c, activate<A>(z, _mm512_loadu_ps(&s[c])), m);
    }
}

template <int A>
static void norm_backward(const bf16 *x, const bf16 *dy, bf16 *dx, int64_t M, int64_t C, const float *mean,
                          const float *variance, const float *scale, const float *shift, const float *gamma,
                          const float *slope, float eps, float *dgamma, float *dbeta, float *dslope) {
  int64_t W = C * rows_together(M, C), R = M * C / W;
  auto a = repeat(scale, C, W), b = repeat(shift, C, W), s = repeat(slope, C, W);
  auto at = [&](int64_t row, int64_t c, __mmask16 m, __m512 &X, __m512 &D, __m512 &z) {
    X = load(x + row + c, m);
    D = load(dy + row + c, m);
    z = _mm512_fmadd_ps(X, _mm512_loadu_ps(&a[c]), _mm512_loadu_ps(&b[c]));
    return _mm512_mul_ps(D, derivative<A>(z, _mm512_loadu_ps(&s[c])));
  };
  std::vector<double> sums(3 * C);  // of dz, of dz·x, of dy·z where z < 0
  column_sums(M, C, sums.data(), [&](int64_t row, int64_t c, __mmask16 m, __m512 *sum) {
    __m512 X, D, z, dz = at(row, c, m, X, D, z);
    sum[0] = _mm512_add_ps(sum[0], dz);
    sum[1] = _mm512_fmadd_ps(dz, X, sum[1]);
    if (A == PRELU) sum[2] = _mm512_fmadd_ps(D, _mm512_min_ps(z, _mm512_setzero_ps()), sum[2]);
  });
  std::vector<float> k0(C), k1(C), k2(C);  // dx = k0·dz + k1·x + k2
  for (int64_t c = 0; c < C; c++) {
    double inverse = 1 / std::sqrt((double)variance[c] + eps);
    double dg = (sums[C + c] - mean[c] * sums[c]) * inverse;
    dgamma[c] = dg, dbeta[c] = sums[c], dslope[c] = sums[2 * C + c];
    double k = gamma[c] * inverse, e = -k * inverse * dg / M;
    k0[c] = k, k1[c] = e, k2[c] = -k * sums[c] / M - e * mean[c];
  }
  auto f0 = repeat(k0.data(), C, W), f1 = repeat(k1.data(), C, W), f2 = repeat(k2.data(), C, W);
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = 0; c < W; c += 16) {
      __mmask16 m = lanes(c, W);
      __m512 X, D, z, dz = at(r * W, c, m, X, D, z);
      __m512 rest = _mm512_fmadd_ps(X, _mm512_loadu_ps(&f1[c]), _mm512_loadu_ps(&f2[c]));
      store(dx + r * W + c, _mm512_fmadd_ps(dz, _mm512_loadu_ps(&f0[c]), rest), m);
    }
}

#define BY_ACTIVATION(function, ...)          \
  switch (activation) {                       \
    case NONE: function<NONE>(__VA_ARGS__); break;  \
    case PRELU: function<PRELU>(__VA_ARGS__); break; \
    default: function<HARD_SWISH>(__VA_ARGS__);      \
  }

extern "C" void norm_activation_forward(const bf16 *x, const float *gamma, const float *beta, const float *slope,
                                        bf16 *y, float *mean, float *variance, float *scale, float *shift,
                                        int64_t M, int64_t C, int64_t activation, float eps) {
  std::vector<double> sums(3 * C);
  column_sums(M, C, sums.data(), [&](int64_t row, int64_t c, __mmask16 m, __m512 *sum) {
    __m512 v = load(x + row + c, m);
    sum[0] = _mm512_add_ps(sum[0], v);
    sum[1] = _mm512_fmadd_ps(v, v, sum[1]);
  });
  for (int64_t c = 0; c < C; c++) {
    double mu = sums[c] / M, var = std::max(sums[C + c] / M - mu * mu, 0.0);
    double k = gamma[c] / std::sqrt(var + eps);
    mean[c] = mu, variance[c] = var, scale[c] = k, shift[c] = beta[c] - mu * k;
  }
  BY_ACTIVATION(norm_forward, x, y, M, C, scale, shift, slope)
}

extern "C" void norm_activation_backward(const bf16 *x, const bf16 *dy, const float *mean, const float *variance,
                                         const float *scale, const float *shift, const float *gamma,
                                         const float *slope, bf16 *dx, float *dgamma, float *dbeta, float *dslope,
                                         int64_t M, int64_t C, int64_t activation, float eps) {
  BY_ACTIVATION(norm_backward, x, dy, dx, M, C, mean, variance, scale, shift, gamma, slope, eps, dgamma, dbeta,
                dslope)
}

// ---------------------------------------------------------------- depthwise convolution, N×H×W×C
// Rows are widened to float32 once and kept in a ring of K; the taps of 16 channels stay in registers.
struct Shape {
  int64_t N, H, W, OH, OW, C, stride, padding, gap;  // gap: zeros between the input's pixels
};

static void widen_row(const bf16 *from, float *to, int64_t W, int64_t C, int64_t Cp, int64_t gap) {
  for (int64_t x = 0; x < W; x++) {
    const bf16 *p = from + x * C;
    float *o = to + x * (gap + 1) * Cp;
    for (int64_t c = 0; c < C; c += 16) _mm512_store_ps(o + c, load(p + c, lanes(c, C)));
  }
}

template <int K> struct Ring {
  Shape s;
  int64_t Cp, row;
  Floats memory;
  int64_t have[K];
  static int64_t width(const Shape &s) {
    return std::max((s.W - 1) * (s.gap + 1) + 1 + 2 * s.padding, (s.OW - 1) * s.stride + K) + 1;
  }
  explicit Ring(const Shape &shape)
      : s(shape), Cp(whole(s.C)), row(width(s) * Cp), memory(K * row) { clear(); }
  void clear() { std::fill(have, have + K, -1); }
  // The K rows under row oy of the output; null where there is padding or a gap.
  void rows(const bf16 *picture, int64_t oy, const float **out) {
    for (int64_t k = 0; k < K; k++) {
      int64_t at = oy * s.stride + k - s.padding, y = at / (s.gap + 1);
      out[k] = nullptr;
      if (at < 0 || at % (s.gap + 1) || y >= s.H) continue;
      float *to = memory.p + y % K * row;
      if (have[y % K] != y) {
        widen_row(picture + y * s.W * s.C, to + s.padding * Cp, s.W, s.C, Cp, s.gap);
        have[y % K] = y;
      }
      out[k] = to;
    }
  }
};

template <int K> static void convolve(const bf16 *in, const float *taps, bf16 *out, const Shape &s) {
  Ring<K> ring(s);
  const float *rows[K];
  for (int64_t n = 0; n < s.N; n++, ring.clear())
    for (int64_t oy = 0; oy < s.OH; oy++) {
      ring.rows(in + n * s.H * s.W * s.C, oy, rows);
      bf16 *to = out + (n * s.OH + oy) * s.OW * s.C;
      for (int64_t c = 0; c < s.C; c += 16) {
        __m512 k[K * K];
        for (int i = 0; i < K * K; i++) k[i] = _mm512_load_ps(taps + i * ring.Cp + c);
        __mmask16 m = lanes(c, s.C);
        for (int64_t x = 0; x < s.OW; x++) {
          __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
          for (int y = 0; y < K; y++) {
            if (!rows[y]) continue;
            const float *p = rows[y] + x * s.stride * ring.Cp + c;
            for (int i = 0; i < K; i++)
              sum[i & 1] = _mm512_fmadd_ps(_mm512_load_ps(p + i * ring.Cp), k[y * K + i], sum[i & 1]);
          }
          store(to + x * s.C + c, _mm512_add_ps(sum[0], sum[1]), m);
        }
      }
    }
}

template <int K> static void tap_gradients(const bf16 *in, const bf16 *dy, float *dtaps, const Shape &s) {
  Ring<K> ring(s);
  Floats wide(s.OW * ring.Cp);
  const float *rows[K];
  for (int64_t n = 0; n < s.N; n++, ring.clear())
    for (int64_t oy = 0; oy < s.OH; oy++) {
      ring.rows(in + n * s.H * s.W * s.C, oy, rows);
      widen_row(dy + (n * s.OH + oy) * s.OW * s.C, wide.p, s.OW, s.C, ring.Cp, 0);
      for (int64_t c = 0; c < s.C; c += 16) {
        __m512 k[K * K];
        for (int i = 0; i < K * K; i++) k[i] = _mm512_load_ps(dtaps + i * ring.Cp + c);
        for (int y = 0; y < K; y++) {
          if (!rows[y]) continue;
          const float *p = rows[y] + c, *d = wide.p + c;
          for (int64_t x = 0; x < s.OW; x++) {
            __m512 D = _mm512_load_ps(d + x * ring.Cp);
            for (int i = 0; i < K; i++)
              k[y * K + i] = _mm512_fmadd_ps(D, _mm512_load_ps(p + (x * s.stride + i) * ring.Cp), k[y * K + i]);
          }
        }
        for (int i = 0; i < K * K; i++) _mm512_store_ps(dtaps + i * ring.Cp + c, k[i]);
      }
    }
}

// C×K×K weights to K·K rows of C taps.
template <int K> static void arrange(const float *weight, float *taps, int64_t C, bool turned) {
  for (int64_t c = 0; c < C; c++)
    for (int i = 0; i < K * K; i++) taps[(turned ? K * K - 1 - i : i) * whole(C) + c] = weight[c * K * K + i];
}

template <int K> static void forward(const bf16 *x, const float *weight, bf16 *y, const Shape &s) {
  Floats taps(K * K * whole(s.C));
  arrange<K>(weight, taps.p, s.C, false);
  convolve<K>(x, taps.p, y, s);
}

template <int K>
static void backward(const bf16 *x, const bf16 *dy, const float *weight, bf16 *dx, float *dweight, const Shape &s) {
  Floats taps(K * K * whole(s.C)), dtaps(K * K * whole(s.C));
  arrange<K>(weight, taps.p, s.C, true);
  convolve<K>(dy, taps.p, dx, {s.N, s.OH, s.OW, s.H, s.W, s.C, 1, K - 1 - s.padding, s.stride - 1});
  tap_gradients<K>(x, dy, dtaps.p, s);
  for (int64_t c = 0; c < s.C; c++)
    for (int i = 0; i < K * K; i++) dweight[c * K * K + i] = dtaps.p[i * whole(s.C) + c];
}

static Shape shape_of(int64_t N, int64_t H, int64_t W, int64_t C, int64_t K, int64_t stride) {
  int64_t p = K / 2;
  return {N, H, W, (H + 2 * p - K) / stride + 1, (W + 2 * p - K) / stride + 1, C, stride, p, 0};
}

extern "C" void depthwise_forward(const bf16 *x, const float *weight, bf16 *y, int64_t N, int64_t H, int64_t W,
                                  int64_t C, int64_t K, int64_t stride) {
  Shape s = shape_of(N, H, W, C, K, stride);
  K == 3 ? forward<3>(x, weight, y, s) : forward<5>(x, weight, y, s);
}

extern "C" void depthwise_backward(const bf16 *x, const bf16 *dy, const float *weight, bf16 *dx, float *dweight,
                                   int64_t N, int64_t H, int64_t W, int64_t C, int64_t K, int64_t stride) {
  Shape s = shape_of(N, H, W, C, K, stride);
  K == 3 ? backward<3>(x, dy, weight, dx, dweight, s) : backward<5>(x, dy, weight, dx, dweight, s);
}

// ---------------------------------------------------------------- squeeze and excitation, N×P×C
// sums[n, c] = Σ_p x (· y where there is one)
extern "C" void pixel_sums(const bf16 *x, const bf16 *y, float *sums, int64_t N, int64_t P, int64_t C) {
  for (int64_t n = 0; n < N; n++)
    for (int64_t c = 0; c < C; c += 16) {
      __mmask16 m = lanes(c, C);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t i = n * P * C + c, end = (n + 1) * P * C; i < end; i += C)
        sum = y ? _mm512_fmadd_ps(load(x + i, m), load(y + i, m), sum) : _mm512_add_ps(sum, load(x + i, m));
      _mm512_mask_storeu_ps(sums + n * C + c, m, sum);
    }
}

// y[n, p, c] = x[n, p, c] · gate[n, c]
extern "C" void scale_channels(const bf16 *x, const float *gate, bf16 *y, int64_t N, int64_t P, int64_t C) {
  for (int64_t n = 0; n < N; n++)
    for (int64_t p = 0; p < P; p++)
      for (int64_t c = 0, i = (n * P + p) * C; c < C; c += 16) {
        __mmask16 m = lanes(c, C);
        store(y + i + c, _mm512_mul_ps(load(x + i + c, m), _mm512_maskz_loadu_ps(m, gate + n * C + c)), m);
      }
}
